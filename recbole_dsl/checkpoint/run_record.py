"""The losses, results and times of the epochs of a run."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from recbole_dsl.checkpoint.forms import is_count, kind, list_of, named, optional, record
from recbole_dsl.environment import installed_versions

_PACKAGES = ("recbole-dsl", "recbole", "torch", "numpy")


def _installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that a run's numbers depend on."""
    return {"python": platform.python_version(), **installed_versions(_PACKAGES)}


@dataclass
class RunRecord:
    """Lists of one length, an entry for each epoch that was trained.

    Attributes:
        epoch: its number, from 0.
        step: optimizer steps taken by its end.
        loss: the sum of its batches' losses, as RecBole logs it; None if the trainer gives none.
        train_seconds: how long its training took.
        valid_seconds: how long its evaluation took; None where there was none.
        valid: metric -> its value on the validation data; None where there was none.
        growth_bytes: the most memory that collecting gradients for growth has taken.
        versions: of Python and the packages, where the run began.
    """

    epoch: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)
    valid_seconds: list[float | None] = field(default_factory=list)
    valid: dict[str, list[float | None]] = field(default_factory=dict)
    growth_bytes: int = 0
    versions: dict[str, str] = field(default_factory=_installed_versions)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "RunRecord":
        """The record of which `to_dict` made ``state``; a new one if that is empty, as of earlier versions."""
        return cls(**state) if state else cls()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def trained(self, epoch: int, step: int, loss: Any, seconds: float) -> None:
        """Note an epoch's training; ``loss`` is a number, or a tuple of the parts of a loss."""
        parts = loss if isinstance(loss, (tuple, list)) else (loss,)
        is_known = all(isinstance(part, (int, float)) for part in parts)
        self.epoch.append(epoch)
        self.step.append(step)
        self.loss.append(float(sum(parts)) if is_known else None)
        self.train_seconds.append(seconds)
        self.valid_seconds.append(None)
        for values in self.valid.values():
            values.append(None)

    def validated(self, result: Mapping[str, float] | None, seconds: float) -> None:
        """Note the evaluation of the last epoch on the validation data."""
        if not self.epoch:
            return
        self.valid_seconds[-1] = seconds
        for name, value in (result or {}).items():
            self.valid.setdefault(name, [None] * len(self.epoch))[-1] = float(value)


def is_record(value: Any) -> bool:
    """Whether ``value`` is what `RunRecord.to_dict` gives, or empty, as of files of earlier versions."""
    if value == {}:
        return True
    numbers = list_of(optional(kind(int, float)))
    form = record(
        epoch=list_of(is_count),
        step=list_of(is_count),
        loss=numbers,
        train_seconds=numbers,
        valid_seconds=numbers,
        valid=named(numbers),
        growth_bytes=is_count,
        versions=named(kind(str)),
    )
    if not form(value):
        return False
    lists = value["valid"].values(), (one for one in value.values() if isinstance(one, list))
    return len({len(one) for one in chain(*lists)}) == 1
