"""What RecBole needs from Python, NumPy, pandas, SciPy, hyperopt, and Weights and Biases."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import replaced, replaces
from recbole_dsl.errors import DSLError, described
from recbole_dsl.patching import changes

_CHUNK = 2**24


@changes(
    "warnings.filters",
    "Python 3.12 and later warn of the unknown escapes in RecBole's strings when its modules are compiled",
    "RecBole has no such escapes",
)
def ignore_invalid_escapes() -> None:
    """Hide the warnings of the compiler about RecBole's files."""
    spec = find_spec("recbole")
    for folder in spec.submodule_search_locations or () if spec else ():
        # such a warning has the path of the file as its module; from Python 3.14 on, the name of the module
        files = re.escape(os.path.join(folder, ""))
        warnings.filterwarnings("ignore", category=SyntaxWarning, module=rf"{files}|recbole\.")


ignore_invalid_escapes()


@replaces("recbole.config.configurator:Config.compatibility_settings", until="RecBole runs on NumPy 2")
def removed_names(usual: Callable) -> Callable:
    """NumPy 2.0 removed ``float_``, ``complex_`` and ``unicode_``, which RecBole gives NumPy's older names."""
    import numpy as np

    return usual if hasattr(np, "float_") else lambda self: None


@replaces(
    "recbole.data.dataset.dataset:np",
    "recbole.data.interaction:np",
    "recbole.evaluator.metrics:np",
    "recbole.trainer.hyper_tuning:np",
    until="RecBole runs on NumPy 2",
)
def removed_aliases(np: ModuleType) -> ModuleType:
    """NumPy 1.24 removed the aliases of Python's types, such as ``np.float``, which these modules use."""
    return replaced(np, bool=np.bool_, float=np.float64, str=np.str_)


@replaces("recbole.evaluator.evaluator:Evaluator.evaluate", until="RecBole converts its results")
def plain_results(evaluate: Callable) -> Callable:
    """NumPy 2.0 prints its numbers as ``np.float64(0.1)``, so results hold Python's numbers."""

    def evaluate_plain(self: Any, dataobject: Any) -> dict[str, float]:
        result = evaluate(self, dataobject)
        result.update({metric: _plain(value) for metric, value in result.items()})
        return result

    return evaluate_plain


@replaces("recbole.trainer.hyper_tuning:HyperTuning.trial", until="RecBole converts its parameters")
def plain_parameters(trial: Callable) -> Callable:
    """NumPy 2.0 prints its numbers as ``np.float64(0.1)``, so HyperTuning gets Python's numbers."""
    return lambda self, params: trial(self, {name: _plain(value) for name, value in params.items()})


def _plain(value: Any) -> Any:
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value


@replaces("recbole.data.dataset.dataset:pd", until="RecBole reads with pandas' parser in C")
def parser_in_c(pd: ModuleType) -> ModuleType:
    """RecBole reads its files with pandas' parser in Python, which takes eight times as long as the one in C.

    Both return the same frame where the separator is one character and the file has no quotation marks, null bytes
    or lone carriage returns. The parser in Python still reads the other files, and those that the parser in C
    refuses, such as one with a line that is too long.
    """

    def read_csv(path: str, **options: Any) -> Any:
        is_single = len(options.get("delimiter") or "") == 1
        if options.get("engine") == "python" and is_single and not has_marks(path):
            with contextlib.suppress(pd.errors.ParserError, ValueError):
                # exact to the last bit, as the parser in Python is
                return pd.read_csv(path, **{**options, "engine": "c", "float_precision": "round_trip"})
        return pd.read_csv(path, **options)

    return replaced(pd, read_csv=read_csv)


def has_marks(path: str) -> bool:
    """Whether a file has quotation marks, null bytes, or carriage returns other than in line ends of Windows."""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            # a line end may be cut in two
            chunk += file.read(1) if chunk.endswith(b"\r") else b""
            if b'"' in chunk or b"\0" in chunk or (b"\r" in chunk and b"\r" in chunk.replace(b"\r\n", b"")):
                return True
    return False


@replaces("recbole.data.dataset.dataset:pd", until="RecBole runs on pandas 3")
def filled_sequences(pd: ModuleType) -> ModuleType:
    """In pandas 3.0 ``frame[column].fillna(inplace=True)`` fills a copy: sequences are filled as they are read."""

    def read_csv(*args: Any, **options: Any) -> Any:
        frame = pd.read_csv(*args, **options)
        for column in frame:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame

    return replaced(pd, read_csv=read_csv)


@replaces("recbole.data.dataset.dataset:Dataset._fill_nan", until="RecBole runs on pandas 3")
def filled_columns(fill_nan: Callable) -> Callable:
    """In pandas 3.0 ``frame[column].fillna(inplace=True)`` fills a copy: columns are filled beforehand."""
    from recbole.utils import FeatureType

    def filled(self: Any) -> None:
        for name in self.feat_name_list:
            frame = getattr(self, name)
            for field in frame:
                if self.field2type[field] == FeatureType.TOKEN:
                    frame[field] = frame[field].fillna(0)
                elif self.field2type[field] == FeatureType.FLOAT:
                    frame[field] = frame[field].fillna(frame[field].mean())
        fill_nan(self)

    return filled


@replaces(
    "recbole.data.dataset.dataset:Dataset._fill_nan",
    "recbole.data.dataset.dataset:Dataset._load_feat",
    until="RecBole runs on pandas 3",
)
def no_warnings_of_chained_assignment(method: Callable) -> Callable:
    """pandas 2.2 and later warn of ``frame[column].fillna(inplace=True)``, about which a user can do nothing."""
    import pandas as pd

    kinds = FutureWarning, getattr(pd.errors, "ChainedAssignmentError", FutureWarning)

    def quiet(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            for kind in kinds:
                warnings.filterwarnings("ignore", "(?s).*chained assignment", kind)
            return method(*args, **kwargs)

    return quiet


@replaces(
    "recbole.data.dataset.dataset:len",
    "recbole.data.dataset.kg_dataset:len",
    "recbole.data.dataset.sequential_dataset:len",
    until="RecBole runs on pandas 3",
)
def length_of_each_value(length: Callable) -> Callable:
    """In pandas 3.0 ``series.agg(len)`` is the length of the series; these modules want that of each value."""
    import pandas as pd

    return lambda values: values.map(length) if isinstance(values, pd.Series) else length(values)


@replaces(
    "recbole.data.dataset.dataset:torch", "recbole.data.interaction:torch", until="RecBole copies what it shares"
)
def writable_values(torch: ModuleType) -> ModuleType:
    """In pandas 3.0 the ``values`` of a column are read-only, which PyTorch warns of when it shares them."""
    import numpy as np

    def of_writable(make: Callable) -> Callable:
        def made(data: Any, *args: Any, **options: Any) -> Any:
            is_locked = isinstance(data, np.ndarray) and not data.flags.writeable
            return make(data.copy() if is_locked else data, *args, **options)

        return made

    makers = {name: of_writable(getattr(torch, name)) for name in ("as_tensor", "FloatTensor", "LongTensor")}
    return replaced(torch, **makers)


@replaces(
    "recbole.model.general_recommender.gcmc:sp",
    "recbole.model.general_recommender.lightgcn:sp",
    "recbole.model.general_recommender.ncl:sp",
    "recbole.model.general_recommender.ngcf:sp",
    "recbole.model.general_recommender.spectralcf:sp",
    "recbole.model.knowledge_aware_recommender.kgin:sp",
    "recbole.model.knowledge_aware_recommender.mcclk:sp",
    until="RecBole runs on SciPy 1.11",
)
def dok_matrix_update(sp: ModuleType) -> ModuleType:
    """SciPy 1.11 removed ``dok_matrix._update``, with which graph models fill their matrices."""
    if hasattr(sp.dok_matrix, "_update"):
        return sp

    class Updated(sp.dok_matrix):
        def _update(self, values: dict[tuple[int, int], float]) -> None:
            self._dict.update(values)

    return replaced(sp, dok_matrix=Updated)


@replaces("recbole.trainer.hyper_tuning:np", until="RecBole runs on hyperopt 0.2.6")
def generator_for_hyperopt(np: ModuleType) -> ModuleType:
    """hyperopt 0.2.6 and later draw from a ``Generator``; RecBole's exhaustive search makes a ``RandomState``."""

    def random_state(seed: int) -> Any:
        return (np.random.RandomState if version("hyperopt") == "0.2.5" else np.random.default_rng)(seed)

    return replaced(np, random=replaced(np.random, RandomState=random_state))


@replaces("recbole.trainer.hyper_tuning:HyperTuning.__init__", until="RecBole says what it lacks")
def missing_hyperopt(start: Callable) -> Callable:
    """RecBole looks for hyperopt in the midst of a search: say before it what to install."""

    def start_with_hyperopt(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            import hyperopt  # noqa: F401
        except Exception as error:
            # an old release fails in as many ways as there are packages that it imports
            raise DSLError(
                f'HyperTuning needs hyperopt ({described(error)}): pip install "hyperopt>=0.2.7"'
            ) from error
        start(self, *args, **kwargs)

    return start_with_hyperopt


@replaces("recbole.utils.wandblogger:WandbLogger.setup", until="RecBole says what it lacks")
def missing_package_or_key_of_wandb(setup: Callable) -> Callable:
    """RecBole fails with wandb's own errors: say in one line that the package, a key or the network is missing."""

    def named(self: Any) -> None:
        try:
            setup(self)
        except Exception as error:
            raise DSLError(
                "log_wandb=True: must have the package wandb and a key (wandb login), or WANDB_MODE=offline: "
                f"{described(error)}"
            ) from error

    return named
