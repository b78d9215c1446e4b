"""What a checkpoint holds of a run."""

from dataclasses import dataclass
from os.path import basename
from typing import Annotated, Any, get_type_hints

import torch
from torch import Tensor

from recbole_dsl.checkpoint.forms import (
    Form,
    is_count,
    is_int,
    is_number,
    is_share,
    is_text,
    kind,
    list_of,
    named,
    optional,
    record,
    vector,
)
from recbole_dsl.checkpoint.run_record import is_record
from recbole_dsl.checkpoint.tokens import are_rows

# interactions in the sample of those that a model was trained on
SAMPLE = 1024


def _are_interactions(value: Any) -> bool:
    if value == {}:
        return True
    if not record(digest=is_int, sample=vector(torch.int64))(value):
        return False
    sample = value["sample"]
    ascends = len(sample) <= SAMPLE and (sample >= 0).all() and (sample.diff() > 0).all()
    return 0 <= value["digest"] < 2**63 and bool(ascends)


def _counts(number: int) -> Form:
    return named(lambda value: list_of(is_count)(value) and len(value) == number)


_is_night = record(
    run=is_text,
    rows=_counts(3),
    weights=_counts(2),
    recoded=list_of(is_text),
    new=named(vector(torch.uint8)),
    damping=is_share,
)


@dataclass(frozen=True)
class RunState:
    """The state of a run after an epoch, as tensors and plain data; each part with the form that it must have.

    Attributes:
        run: a name that no other run has.
        config, dsl: RecBole's options and those of `DSLConfig`.
        epoch: the last that was trained, from 0; -1 before the first.
        cur_step: evaluations since the best one.
        state_dict: of the model, sparse.
        shapes: (rows, columns) of each sparse weight.
        other_parameter: what RecBole's model lists as such, encoded.
        attributes: what else training has changed, of each module and of the trainer, encoded.
        learners: the class names of the optimizers.
        record: a `RunRecord`, or empty.
        nights: for each warm start of the weights, the run that it started from, how many tokens and weights
            stayed, came and went, and of the last one which users and items were new.
        rows: whose rows the weights are, or empty.
        trained_on: a digest and a sample of the interactions, or empty.
    """

    run: Annotated[str, is_text]
    model: Annotated[str, lambda value: is_text(value) and value.isidentifier()]
    dataset: Annotated[str, lambda value: is_text(value) and basename(value) == value]
    config: Annotated[dict[str, Any], named(kind(object))]
    dsl: Annotated[dict[str, Any], named(kind(object))]
    epoch: Annotated[int, lambda value: is_int(value) and -1 <= value < 2**62]
    cur_step: Annotated[int, is_count]
    best_valid_score: Annotated[float, is_number]
    best_valid_result: Annotated[dict[str, float] | None, optional(named(is_number))]
    state_dict: Annotated[dict[str, Tensor], named(kind(Tensor))]
    shapes: Annotated[dict[str, Any] | None, optional(kind(dict))]
    other_parameter: Annotated[dict[str, Any], kind(dict)]
    attributes: Annotated[dict[str, dict[str, Any]], named(kind(dict))]
    learners: Annotated[list[str], list_of(is_text)]
    optimizers: Annotated[list[dict[str, Any]], list_of(kind(dict))]
    schedulers: Annotated[dict[str, dict[str, Any]], named(kind(dict))]
    topology: Annotated[dict[str, Any], kind(dict)]
    random_state: Annotated[dict[str, Any], kind(dict)]
    record: Annotated[dict[str, Any], is_record]
    nights: Annotated[list[dict[str, Any]], list_of(_is_night)]
    rows: Annotated[dict[str, Any], are_rows]
    trained_on: Annotated[dict[str, Any], _are_interactions]

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "RunState":
        """The state in ``checkpoint``, in which `problem` found none."""
        return cls(**{name: checkpoint[name] for name in _FORMS})


_FORMS: dict[str, Form] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(RunState, include_extras=True).items()
}
# what the first versions did not have; not all files of version 4 have shapes, nights, and what was new in these
_ADDED: dict[str, Any] = {
    "run": "unknown", "attributes": {}, "schedulers": {}, "record": {}, "rows": {}, "trained_on": {}
}  # fmt: skip


def fill_in(checkpoint: dict[str, Any], is_earlier: bool) -> None:
    """Give ``checkpoint`` the parts that it may lack, as it was made by an earlier version."""
    for name, value in ({"shapes": None, "nights": []} | (_ADDED if is_earlier else {})).items():
        checkpoint.setdefault(name, value)
    for night in checkpoint["nights"] if isinstance(checkpoint["nights"], list) else ():
        if isinstance(night, dict):
            night.setdefault("new", {})


def problem(checkpoint: dict[str, Any]) -> str | None:
    """What keeps ``checkpoint`` from being a `RunState`, or None."""
    for name, is_right in _FORMS.items():
        if name not in checkpoint:
            return f"has no {name}"
        if not is_right(checkpoint[name]):
            return f"{name} is not what a checkpoint holds"
    return None
