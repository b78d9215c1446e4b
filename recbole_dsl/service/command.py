"""The command ``recbole-dsl serve``."""

import argparse
import socket
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from recbole_dsl.environment import check_serving_environment
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.patching import variable
from recbole_dsl.serving.commands import number, refuse_others

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
# seconds that requests have when the service is asked to end; one whose client sends no more would last for ever
_SHUTDOWN = 5
# options that are numbers: the type, the default, the smallest and the largest
_NUMBERS: dict[str, tuple[type, float, float, float]] = {
    "port": (int, 8000, 1, 2**16 - 1),
    "workers": (int, 1, 1, 1024),
    "max_k": (int, 1000, 1, 10**6),
    "max_body": (int, 2**20, 1, 2**30),
    "reload_interval": (float, 1.0, 0.01, 86_400.0),
}
_SETTINGS = variable("RECBOLE_DSL_SERVICE", "the workers of recbole-dsl serve find its options there")
_METRICS = variable("PROMETHEUS_MULTIPROC_DIR", "the workers of recbole-dsl serve add up what they count there")


def declare_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    parser.description = (
        "Serve a file that recbole-dsl export made over HTTP; GET /docs describes the requests. When the file is "
        "replaced, the new one is loaded in the background and then takes over. A damaged one is not taken."
    )
    parser.epilog = (
        "Example: recbole-dsl serve model.rdsl --port=8000\n"
        "         curl 'localhost:8000/recommend?users=196&k=10'"
    )
    parser.add_argument("artifact", help="a file that recbole-dsl export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1 by default")
    parser.add_argument(
        "--new_items",
        help='items that came after training, on each line {"item": "i3", "users": ["u1", "u9"]}; watched as well',
    )
    for name, meaning in (
        ("port", "the port to listen on"),
        ("workers", "how many processes answer; each takes a core and has a copy of the artifact"),
        ("max_k", "the largest k of a request"),
        ("max_body", "the most bytes of a request's body"),
        ("reload_interval", "seconds between two looks at the file"),
    ):
        parser.add_argument(f"--{name}", help=f"{meaning}; {_NUMBERS[name][1]} by default")


def run_serve(known: argparse.Namespace, others: list[str]) -> None:
    """Serve until the process is asked to end."""
    refuse_others(others)
    numbers = {name: _number(name, getattr(known, name)) for name in _NUMBERS}
    check_serving_environment()
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise DSLError(f"{', '.join(missing)}: must be installed: pip install {' '.join(missing)}")
    import uvicorn

    from recbole_dsl.service.app import Settings, make_app
    from recbole_dsl.service.live import Live, load

    limits = {name: numbers[name] for name in ("max_k", "max_body", "reload_interval")}
    settings = Settings(known.artifact, known.new_items, **limits)
    # a file that cannot be used ends the command before anything listens
    load(settings.artifact, settings.new_items)
    host, port, workers = known.host, numbers["port"], numbers["workers"]
    _check_free(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"recbole-dsl serve: {url}/docs; ready when {url}/readyz says so", file=sys.stderr)
    options: dict[str, Any] = {"host": host, "port": port, "log_config": _LOGGING, "access_log": False}
    options |= {"timeout_graceful_shutdown": _SHUTDOWN}
    if workers == 1:
        live = Live(settings.artifact, settings.new_items, settings.reload_interval)
        uvicorn.run(make_app(live, settings), **options)
        return
    with ExitStack() as kept:
        kept.enter_context(_SETTINGS.by(settings.to_text()))
        kept.enter_context(_METRICS.by(kept.enter_context(tempfile.TemporaryDirectory())))
        uvicorn.run("recbole_dsl.service.app:worker_app", factory=True, workers=workers, **options)


def _number(name: str, word: str | None) -> Any:
    kind, default, least, most = _NUMBERS[name]
    value = default if word is None else number(word, kind)
    if isinstance(value, str) or not least <= value <= most:
        a_number = "an integer" if kind is int else "a number"
        raise DSLError(f"{name}={word}: must be {a_number} from {least} to {most}")
    return value


def _check_free(host: str, port: int) -> None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise refusal("port", port, f"free on {host}, and cannot be opened: {error.strerror}") from error


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "recbole_dsl.service": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
