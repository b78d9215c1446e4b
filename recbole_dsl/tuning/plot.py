"""RecBole's plot of a search: the score of each trial, with its options."""

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

from recbole.trainer import HyperTuning

from recbole_dsl.patching import Patch
from recbole_dsl.tuning.search_files import PLOT, SearchFolder
from recbole_dsl.tuning.trial import Trial

_PLOT = Patch("plotly.offline", "plot", "plotly opens what it has drawn, on a server in a browser of the terminal")


def plot_search(model: str, trials: Sequence[Trial], folder: SearchFolder) -> bool:
    """Write RecBole's plot of ``trials`` into ``folder``; False if plotly, which draws it, is not installed."""
    try:
        import plotly.offline
    except ImportError:
        return False
    scored = [trial for trial in trials if trial.score is not None]
    with tempfile.TemporaryDirectory() as place, _PLOT.by(partial(plotly.offline.plot, auto_open=False)):
        file = os.path.join(place, PLOT)
        HyperTuning.plot_hyper(
            SimpleNamespace(
                model=model,
                score_list=[trial.score for trial in scored],
                params_list=[HyperTuning.params2str(trial.options) for trial in scored],
                display_file=file,
            )
        )
        folder.copy(file, PLOT)
    return True
