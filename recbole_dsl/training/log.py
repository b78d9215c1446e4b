"""The log of a run: handlers of its own, beside those of the program, which stay as they are."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

import colorlog
from recbole.config import Config
from recbole.utils.logger import log_colors_config

from recbole_dsl.errors import DSLError
from recbole_dsl.patching import changes
from recbole_dsl.training.console import make_brief
from recbole_dsl.training.run_files import time_stamp

_FOLDER = "log"
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def console_log(config: Config) -> Iterator[Callable[[], None]]:
    """Within it the console shows what went wrong, if the program has set up no log; there is no file."""
    with _beside_a_program(config) as (add, is_alone):
        if is_alone:
            add(*_console(is_brief=True))
        yield lambda: None


@contextmanager
@changes("the root logger's handlers", "a run has a log file and a console of its own")
def run_log(config: Config) -> Iterator[Callable[[], str]]:
    """Within it, hold the log of a run back until the yielded function is called.

    That function opens a new log file, gives it and the console all that was held back, and returns its path. An
    error before leaves no file, and on the console only its own message. If it is never called, there is no file
    either, and the console gets what was held back. A program that has set up a log keeps it:
    its handlers get what passes their levels, and nothing else goes to the console. Unless the option ``verbose``
    is True, the console shows only what `console.say` says, and what went wrong.
    """
    with _beside_a_program(config) as (add, is_alone):
        memory = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        add(memory)

        def hand_over(*others: logging.Handler) -> None:
            handlers = [*(_console(is_brief=not config["verbose"]) if is_alone else ()), *others]
            logging.getLogger().removeHandler(memory)
            add(*handlers)
            for record in memory.buffer:
                for handler in handlers:
                    if record.levelno >= handler.level:
                        handler.handle(record)

        def begin() -> str:
            file = _file(config)
            hand_over(file)
            return file.baseFilename

        yield begin
        if is_alone and memory in logging.getLogger().handlers:
            # nothing was begun, and there was no error: what is there to say has been held back
            hand_over()


@contextmanager
@changes("the root logger's handlers and level", "RecBole logs to it")
def _beside_a_program(config: Config) -> Iterator[tuple[Callable[..., None], bool]]:
    """Yield a function that adds handlers until the end of the context, and whether there are no others."""
    root = logging.getLogger()
    others, before, own = root.handlers[:], root.level, []
    level = getattr(logging, str(config["state"] or "info").upper(), logging.INFO)

    def add(*handlers: logging.Handler) -> None:
        for handler in handlers:
            handler.setLevel(level)
            own.append(handler)
            root.addHandler(handler)

    def passes_as_before(record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and logger.parent is not None:
            if logger.level:
                return True
            logger = logger.parent
        return record.levelno >= before

    for handler in others:
        handler.addFilter(passes_as_before)
    root.setLevel(min(before, level))
    try:
        yield add, not others
    finally:
        for handler in own:
            root.removeHandler(handler)
            handler.close()
        for handler in others:
            handler.removeFilter(passes_as_before)
        root.setLevel(before)


class _WithoutColors(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _COLORS.sub("", super().format(record))


def _file(config: Config) -> logging.FileHandler:
    folder = os.path.join(_FOLDER, config["model"])
    name = f"{config['model']}-{config['dataset']}-{time_stamp()}.log"
    try:
        os.makedirs(folder, exist_ok=True)
        file = logging.FileHandler(os.path.join(folder, name), mode="x", encoding="utf-8")
    except OSError as error:
        raise DSLError(f"{_FOLDER}: must be a folder that can be written: {error.strerror}") from error
    file.setFormatter(_WithoutColors("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S"))
    return file


def _console(is_brief: bool) -> list[logging.Handler]:
    # under pythonw there is no stream
    if sys.stderr is None:
        return []
    console = logging.StreamHandler()
    if is_brief:
        make_brief(console)
        return [console]
    form = "%(log_color)s%(asctime)-15s %(levelname)s  %(message)s"
    console.setFormatter(colorlog.ColoredFormatter(form, "%d %b %H:%M", log_colors=log_colors_config))
    return [console]
