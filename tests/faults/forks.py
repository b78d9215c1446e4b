"""Work in a forked process, where everything is imported already, in a folder of its own."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def start(work: Callable[[], None], folder: Path, out: Path, err: Path | None = None) -> int:
    """Run ``work`` in ``folder`` in a forked process; returns the process's number.

    Its output is in ``out``, and its errors in ``err`` or there too.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        descriptor = None
        for number, path in ((1, out), (2, err)):
            if path is not None:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a process that `start` began; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
