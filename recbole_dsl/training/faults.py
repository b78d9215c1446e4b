"""Errors of RecBole's own code at the start of a training or an evaluation, in one line."""

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from recbole.config import Config

from recbole_dsl.distributed.agreement import is_parallel
from recbole_dsl.errors import TRACEBACK, DSLError, described
from recbole_dsl.options.recbole_models import is_of_recbole

_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    os.path.dirname(os.path.dirname(torch.__file__)),
)


@contextmanager
def said_in_one_line(config: Config, what: str, has_worked: Callable[[], bool]) -> Iterator[None]:
    """Turn an error within into a DSLError that says ``what`` fails, with the error's class and its place.

    Other errors pass: once it ``has_worked``, for models that are not RecBole's, if code of the user's own (a
    trainer, a metric, a hook) was called, and in several processes, which tell each other.
    """
    try:
        yield
    except DSLError:
        raise
    except Exception as error:
        # module, file and line of each call
        calls = [
            (frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        is_recboles = is_of_recbole(config.model_class) and not any(_is_the_users(*call[:2]) for call in calls)
        if has_worked() or is_parallel(config) or not is_recboles:
            raise
        module, _, line = next(call for call in reversed(calls) if _is_ours(call[0]))
        raise DSLError(
            f"model={config['model']}: {what} fails: {described(error)} ({module}, line {line}; {TRACEBACK}=1 "
            "shows the rest)"
        ) from error


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("recbole", "recbole_dsl")


def _is_the_users(module: str, file: str) -> bool:
    # code that a library compiles from text has no file
    is_known = _is_ours(module) or file.startswith(("<", *_LIBRARIES))
    return module.split(".")[0] == "__main__" or not is_known
