"""RecBole's log, opened when there is something to log about."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

import colorlog
from recbole.config import Config
from recbole.utils import init_logger
from recbole.utils.logger import log_colors_config

from recbole_dsl.errors import DSLError
from recbole_dsl.training.console import make_brief

# of a handler: that a run of ours has made it
_OURS = "_of_a_run"


@contextmanager
def console_log(config: Config) -> Iterator[logging.Logger]:
    """Log to the console, and to no file; a program that has set up its own log keeps that."""
    root = logging.getLogger()
    if not root.handlers:
        root.setLevel(_level(config))
        root.addHandler(_console())
        _mark_ours(root)
    yield root


@contextmanager
def held_back_log(
    config: Config, replace_handlers: bool = False, is_brief: bool = False
) -> Iterator[logging.Logger]:
    """Hold the log back; call RecBole's ``init_logger`` at the end and give its handlers what came before.

    A run before this one in the process keeps its own file: its handlers are taken away. Those of a program that
    has set up its own log stay, and get what a run logs.
    An error within leaves no log file and no handler behind, and nothing on the console but what it says itself.

    Args:
        replace_handlers: remove the handlers that are there, as RecBole's tuner does before each trial.
        is_brief: show on the console only what `console.say` says, and what went wrong.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        is_ours = getattr(handler, _OURS, False)
        if is_ours or replace_handlers:
            root.removeHandler(handler)
        if is_ours:
            handler.close()
    own_handlers = bool(root.handlers)
    level = root.level
    memory = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    if not own_handlers:
        root.setLevel(_level(config))
        root.addHandler(memory)
    try:
        yield root
    except BaseException:
        root.setLevel(level)
        raise
    finally:
        root.removeHandler(memory)
    try:
        init_logger(config)
    except OSError as error:
        raise DSLError(f"log: must be a folder that can be written: {error.strerror}") from error
    if not own_handlers:
        _mark_ours(root)
    if is_brief and not own_handlers:
        for handler in root.handlers:
            # a FileHandler is one too
            if type(handler) is logging.StreamHandler:
                make_brief(handler)
    for record in memory.buffer:
        for handler in root.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def _mark_ours(root: logging.Logger) -> None:
    for handler in root.handlers:
        setattr(handler, _OURS, True)


def _console() -> logging.Handler:
    console = logging.StreamHandler()
    console.setFormatter(
        colorlog.ColoredFormatter(
            "%(log_color)s%(asctime)-15s %(levelname)s  %(message)s", "%d %b %H:%M", log_colors=log_colors_config
        )
    )
    return console


def _level(config: Config) -> int:
    return getattr(logging, str(config["state"] or "info").upper(), logging.INFO)
