"""The names of a run's files: the best epoch's and the last state's."""

import os
import secrets
from datetime import datetime

from recbole.config import Config

_BEST, _LAST = ".pth", ".last"


def time_stamp() -> str:
    """The local time and six random digits, for names that are unique and sort by time.

    RecBole writes the month as a word, so that December's files come before November's.
    """
    # secrets ignores the seed: runs with the same seed, on several machines too, get different names
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(3)}"


def new_name(config: Config) -> str:
    """The name of the best epoch's file of a new run."""
    return f"{config['model']}-{time_stamp()}{_BEST}"


def from_here(path: str) -> str:
    """``path`` as a command would name it, in or below the current folder."""
    short = os.path.relpath(path)
    return path if short.startswith(os.pardir) else short


def last_file(model_file: str) -> str:
    """Where the last state of a run is kept, beside the best epoch's ``model_file``."""
    return os.path.splitext(model_file)[0] + _LAST


def best_file(path: str) -> str:
    """The best epoch's file of the run that ``path`` is a file of."""
    return os.path.splitext(path)[0] + _BEST if is_last(path) else path


def is_last(path: str) -> bool:
    """Whether ``path`` is the file of a last state."""
    return path.endswith(_LAST)


def last_files(config: Config) -> list[str]:
    """The last states in ``checkpoint_dir`` of runs of this model, the newest first."""
    folder, model = config["checkpoint_dir"], config["model"]
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.startswith(f"{model}-") and is_last(name)]
    return sorted((os.path.join(folder, name) for name in names), key=os.path.getmtime, reverse=True)
