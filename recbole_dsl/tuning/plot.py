"""RecBole's plot of a search: the score of every trial, with its options."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

from recbole.trainer import HyperTuning

from recbole_dsl.tuning.search_files import PLOT, SearchFolder
from recbole_dsl.tuning.trial import Trial


def plot_search(model: str, trials: Sequence[Trial], folder: SearchFolder) -> bool:
    """Write RecBole's plot of ``trials`` into ``folder``; False if plotly, which draws it, is not installed."""
    try:
        import plotly.offline  # noqa: F401
    except ImportError:
        return False
    scored = [trial for trial in trials if trial.score is not None]
    with tempfile.TemporaryDirectory() as place, _no_browser():
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


@contextmanager
def _no_browser() -> Iterator[None]:
    """RecBole has plotly open what it has drawn, which on a server may be a browser in the terminal."""
    import plotly.offline

    usual = plotly.offline.plot
    plotly.offline.plot = partial(usual, auto_open=False)
    try:
        yield
    finally:
        plotly.offline.plot = usual
