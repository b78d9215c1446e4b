"""Errors of RecBole's own code at the start of a training or an evaluation, in one line."""

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from recbole.config import Config

from recbole_dsl.distributed.agreement import is_parallel
from recbole_dsl.errors import TRACEBACK, DSLError, described
from recbole_dsl.options.recbole_models import is_of_recbole

_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    os.path.dirname(os.path.dirname(torch.__file__)),
)
_OURS = {"recbole", "recbole_dsl"}


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
        frames = list(traceback.walk_tb(error.__traceback__))
        is_recboles = is_of_recbole(config.model_class) and not any(_is_the_users(frame) for frame, _ in frames)
        if has_worked() or is_parallel(config) or not is_recboles:
            raise
        module, line = next((_module(f), n) for f, n in reversed(frames) if _root(f) in _OURS)
        raise DSLError(
            f"model={config['model']}: {what} fails: {described(error)} ({module}, line {line}; {TRACEBACK}=1 "
            "shows the rest)"
        ) from error


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")


def _root(frame: FrameType) -> str:
    return _module(frame).split(".")[0]


def _is_the_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    # code that a library compiles from text has no file
    is_known = _root(frame) in _OURS or file.startswith(("<", *_LIBRARIES))
    return _root(frame) == "__main__" or not is_known
