"""When Ctrl-C and SIGTERM may end what runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from recbole_dsl.patching import changes


@contextmanager
@changes(
    "signal.SIGINT, signal.SIGTERM", "C++ that calls Python can turn what a handler raises into another error"
)
def held_interrupts() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM wait; at its end the handler of the one that came is called."""
    # Python calls handlers in the main thread, and lets no other set them
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[signal.Signals(came[0])](came[0], None)
