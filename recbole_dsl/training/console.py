"""What a training says on the console: a start, a line for each epoch, an end. RecBole's log file has the rest."""

import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from recbole_dsl.patching import Patch
from recbole_dsl.topology.engine import TopologyUpdate
from recbole_dsl.training.run_files import from_here

if TYPE_CHECKING:
    from recbole_dsl.training.trainer import DSLMixin

_OURS = os.path.dirname(os.path.dirname(__file__))
_NAMED = 4
_PROGRESS_BAR = Patch("recbole.trainer.trainer", "tqdm", "bars vanish at their end and show the topology")


class BriefConsole(logging.Filter):
    """Lets errors through a handler, and warnings of this project, and what `say` says."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.levelno >= logging.WARNING and record.pathname.startswith(_OURS)
        return hasattr(record, "said") or record.levelno >= logging.ERROR or is_ours


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if hasattr(record, "said") else f"{record.levelname.lower()}: {message}"


def make_brief(handler: logging.Handler) -> None:
    """Let ``handler``, of the console, show only what `BriefConsole` lets through."""
    handler.addFilter(BriefConsole())
    handler.setFormatter(_Formatter())


def say(text: str) -> None:
    """Show ``text`` on the console, if that is brief; it goes into no log."""
    record = logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "levelname": "INFO", "said": True})
    for handler in _brief_handlers():
        if record.levelno >= handler.level:
            handler.handle(record)


def _brief_handlers() -> list[logging.Handler]:
    return [h for h in logging.getLogger().handlers if any(isinstance(f, BriefConsole) for f in h.filters)]


def say_start(trainer: "DSLMixin", data: Any, saved: bool, log: str | None) -> None:
    """Data, model, what is sparse, what is not and why, and where the files go: five lines."""
    report, dataset, config = trainer.sparsity, data.dataset, trainer.config
    per_user = f", {dataset.avg_actions_of_users:.0f} a user" if dataset.uid_field else ""
    known = {"users": dataset.uid_field, "items": dataset.iid_field}
    counts = [f"{dataset.num(name) - 1:,} {what}" for what, name in known.items() if name]
    counts.append(f"{dataset.inter_num:,} interactions{per_user}")
    stayed = sum(count for count, _ in report.dense.values())
    say(f"data    {config['dataset']}: {', '.join(counts)}")
    say(f"model   {config['model']}, {report.numel + stayed:,} weights if it were dense")
    alive = f"{report.nnz:,} of {report.numel:,} weights alive ({report.density:.4g})"
    say(f"sparse  {alive}: {_named(report.weights)}")
    say(f"dense   {_why_dense(report.dense)}")
    where = f"; log: {from_here(log)}" if log else ""
    say(f"files   {from_here(trainer.saved_model_file) if saved else 'none are saved'}{where}")


def say_epoch(trainer: "DSLMixin", epoch: int) -> None:
    """One line of what ``epoch``, the last that was trained, came to; * if it is the best so far."""
    record = trainer.record
    if not record.epoch or record.epoch[-1] != epoch:
        return
    loss = "-" if record.loss[-1] is None else f"{record.loss[-1]:.4f}"
    metric = str(trainer.config["valid_metric"]).lower()
    value = record.valid.get(metric, [None])[-1]
    valid = "" if value is None else f"  valid {metric} {value:.4f}{'*' if trainer.cur_step == 0 else ' '}"
    seconds = record.train_seconds[-1] + (record.valid_seconds[-1] or 0)
    say(f"epoch {epoch:>3}  loss {loss}{valid}  {seconds:.1f} s")


def say_end(trainer: "DSLMixin", test_result: Mapping[str, float] | None, next_command: str | None) -> None:
    """The exploration rate, the cost table, the test result, and what to type next."""
    updates = len(trainer.topology_updates)
    say(f"\n{updates} topology updates, {trainer.exploration_rate:.1%} of the weights were alive at some time")
    say(f"{trainer.cost}\n")
    if test_result:
        say("test    " + "  ".join(f"{name} {value:.4f}" for name, value in test_result.items()))
    if next_command:
        say(f"look    recbole-dsl report {shlex.quote(from_here(trainer.saved_model_file))}")
        say(f"next    {next_command}")


@contextmanager
def brief_bars(trainer: "DSLMixin") -> Iterator[None]:
    """Within it, RecBole's bars vanish at their end and show the topology; where nobody looks, there are none."""
    is_seen = sys.stderr is not None
    if is_seen and not _brief_handlers():
        yield
        return

    # tqdm fails where there is no stream, as under pythonw
    hidden = {} if is_seen else {"disable": True, "file": io.StringIO()}

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **{"disable": None, **kwargs, "leave": False, **hidden})
            trainer.bar = self
            if trainer.topology_updates:
                self.set_postfix_str(_topology(trainer.topology_updates), refresh=False)

    try:
        with _PROGRESS_BAR.by(Bar):
            yield
    finally:
        trainer.bar = None


def show_update(trainer: "DSLMixin") -> None:
    """Show the last topology update in the bar, if there is one."""
    if trainer.bar is not None:
        trainer.bar.set_postfix_str(_topology(trainer.topology_updates))


def _topology(updates: list[TopologyUpdate]) -> str:
    return f"update {len(updates)}: {updates[-1].exchanged:,} exchanged, R {updates[-1].exploration_rate:.3f}"


def _named(names: Mapping[str, Any]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(list(names)[:_NAMED]) + more


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
