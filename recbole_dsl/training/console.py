"""The console of a training: a start, a line for each epoch, an end. RecBole's log file has the rest."""

import io
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recbole.config import Config
from recbole.data.dataset import Dataset
from tqdm import tqdm

from recbole_dsl.checkpoint.run_record import RunRecord
from recbole_dsl.errors import first_of
from recbole_dsl.measure.cost import Cost
from recbole_dsl.patching import Patch
from recbole_dsl.sparsification import SparsityReport
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.training.run_files import from_here

_OURS = os.path.dirname(os.path.dirname(__file__))
_INDENT = 8
_PROGRESS_BAR = Patch(
    "recbole.trainer.trainer", "tqdm", "bars fit the terminal, vanish at their end and show the topology"
)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if hasattr(record, "said") else f"{record.levelname.lower()}: {message}"


def make_brief(handler: logging.Handler) -> None:
    """Let ``handler``, of the console, show only errors, warnings of this package and what `say` says."""
    handler.addFilter(_is_shown)
    handler.setFormatter(_Formatter())


def say(text: str) -> None:
    """Show ``text`` on the console, if that is brief, and write it to no log."""
    record = logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "levelname": "INFO", "said": True})
    for handler in _brief_handlers():
        if record.levelno >= handler.level:
            handler.handle(record)


def say_part(name: str, text: str) -> None:
    """Show ``text`` after its ``name``, in lines that fit a terminal of 80 columns."""
    lines = textwrap.wrap(text, 80 - _INDENT, break_long_words=False, break_on_hyphens=False)
    say(f"{name:<{_INDENT}}" + f"\n{' ' * _INDENT}".join(lines))


def _brief_handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if _is_shown in handler.filters]


def _is_shown(record: logging.LogRecord) -> bool:
    is_ours = record.levelno >= logging.WARNING and record.pathname.startswith(_OURS)
    return hasattr(record, "said") or record.levelno >= logging.ERROR or is_ours


def say_start(
    config: Config, sparsity: SparsityReport, dataset: Dataset, model_file: str | None, log: str | None
) -> None:
    """A line for each of: data, model, what is sparse, what is not and why, the file, and the log."""
    per_user = f", {dataset.avg_actions_of_users:.0f} a user" if dataset.uid_field else ""
    known = {"users": dataset.uid_field, "items": dataset.iid_field}
    counts = [f"{dataset.num(name) - 1:,} {what}" for what, name in known.items() if name]
    counts.append(f"{dataset.inter_num:,} interactions{per_user}")
    stayed = sum(count for count, _ in sparsity.dense.values())
    say_part("data", f"{config['dataset']}: {', '.join(counts)}")
    say_part("model", f"{config['model']}, {sparsity.numel + stayed:,} weights if it were dense")
    alive = f"{sparsity.nnz:,} of {sparsity.numel:,} weights alive ({sparsity.density:.4g})"
    say_part("sparse", f"{alive}: {first_of(list(sparsity.weights))}")
    say_part("dense", _why_dense(sparsity.dense))
    if sparsity.dropout:
        say_part("dropout", f"{sparsity.dropout_change()} (dropout_factor)")
    # a path in one piece can be copied
    say(f"file    {from_here(model_file) if model_file else 'none is saved'}")
    if log:
        say(f"log     {from_here(log)}")


def say_epoch(record: RunRecord, metric: str, is_best: bool) -> None:
    """One line of what the last epoch of ``record`` came to; * if it is the best so far."""
    loss = "-" if record.loss[-1] is None else f"{record.loss[-1]:.4f}"
    value = record.valid.get(metric.lower(), [None])[-1]
    valid = "" if value is None else f"  valid {metric.lower()} {value:.4f}{'*' if is_best else ' '}"
    seconds = record.train_seconds[-1] + (record.valid_seconds[-1] or 0)
    say(f"epoch {record.epoch[-1]:>3}  loss {loss}{valid}  {seconds:.1f} s")


def say_end(
    topology: DynamicTopology,
    cost: Cost | None,
    test_result: Mapping[str, float] | None,
    model_file: str,
    next_command: str | None,
) -> None:
    """The exploration rate, the cost table, the test result, and what to type next."""
    n = len(topology.updates)
    rate = f"{topology.exploration_rate:.1%} of the weights were alive at some time"
    say(f"\n{n} topology update{'' if n == 1 else 's'}, {rate}")
    say(f"{cost}\n")
    if test_result:
        say_part("test", "  ".join(f"{name} {value:.4f}" for name, value in test_result.items()))
    if next_command:
        say(f"look    recbole-dsl report {shlex.quote(from_here(model_file))}")
        say(f"next    {next_command}")


class BriefBars:
    """RecBole's progress bars, as wide as the terminal, showing how ``topology`` changes. Brief ones vanish."""

    def __init__(self, topology: DynamicTopology):
        self._topology = topology
        self._bar: tqdm | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it, RecBole's bars are such; without a stream to show them there are none."""
        own: dict[str, Any] = {"dynamic_ncols": True, "ncols": None}
        if _brief_handlers():
            own["leave"] = False
        if sys.stderr is None:
            # tqdm fails where there is no stream, as under pythonw
            own |= {"disable": True, "file": io.StringIO()}

        def bar(*args: Any, **kwargs: Any) -> tqdm:
            self._bar = tqdm(*args, **{"disable": None, **kwargs, **own})
            self.refresh(at_once=False)
            return self._bar

        try:
            with _PROGRESS_BAR.by(bar):
                yield
        finally:
            self._bar = None

    def refresh(self, at_once: bool = True) -> None:
        """Show the last topology update in the bar, if there is one."""
        updates = self._topology.updates
        if self._bar is not None and updates:
            # short, as 80 columns leave little beside the bar
            last = f"update {len(updates)}, R {updates[-1].exploration_rate:.3f}"
            self._bar.set_postfix_str(last, refresh=at_once)


def _why_dense(dense: Mapping[str, tuple[int, str]]) -> str:
    if not dense:
        return "nothing"
    reasons: dict[str, list[str]] = {}
    for name, (_, reason) in dense.items():
        reasons.setdefault(reason, []).append(name)
    parts = [
        f"{names[0] if len(names) == 1 else f'{len(names)} tensors'} ({why})" for why, names in reasons.items()
    ]
    return f"{sum(count for count, _ in dense.values()):,} weights: {', '.join(parts)}"
