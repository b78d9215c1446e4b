"""What a checkpoint holds of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import basename
from typing import Annotated, Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from recbole_dsl.checkpoint.forms import (
    Form,
    is_count,
    is_int,
    is_number,
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


class Part(NamedTuple):
    """What a part of a `RunState` must be, also in words; ``earlier`` makes it for files that lack it."""

    form: Form
    words: str
    earlier: Callable[[], Any] | None = None


def _are_interactions(value: Any) -> bool:
    if value == {}:
        return True
    if not record(digest=is_int, sample=vector(torch.int64))(value):
        return False
    sample = value["sample"]
    ascends = len(sample) <= SAMPLE and (sample >= 0).all() and (sample.diff() > 0).all()
    return 0 <= value["digest"] < 2**63 and bool(ascends)


@dataclass(frozen=True)
class RunState:
    """The state of a run after an epoch, as tensors and plain data.

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
        rows: whose rows the weights are, or empty.
        trained_on: a digest and a sample of the interactions, or empty.
    """

    run: Annotated[str, Part(is_text, "text", lambda: "unknown")]
    model: Annotated[str, Part(lambda value: is_text(value) and value.isidentifier(), "the name of a model")]
    dataset: Annotated[
        str, Part(lambda value: is_text(value) and basename(value) == value, "the name of a dataset")
    ]
    config: Annotated[dict[str, Any], Part(named(kind(object)), "options by their names")]
    dsl: Annotated[dict[str, Any], Part(named(kind(object)), "options by their names")]
    epoch: Annotated[int, Part(lambda value: is_int(value) and -1 <= value < 2**62, "an integer >= -1")]
    cur_step: Annotated[int, Part(is_count, "an integer >= 0")]
    best_valid_score: Annotated[float, Part(is_number, "a number")]
    best_valid_result: Annotated[
        dict[str, float] | None, Part(optional(named(is_number)), "numbers by their names")
    ]
    state_dict: Annotated[dict[str, Tensor], Part(named(kind(Tensor)), "tensors by their names")]
    shapes: Annotated[dict[str, Any] | None, Part(optional(kind(dict)), "shapes by their names")]
    other_parameter: Annotated[dict[str, Any], Part(kind(dict), "values by their names")]
    attributes: Annotated[dict[str, dict[str, Any]], Part(named(kind(dict)), "values by module and name", dict)]
    learners: Annotated[list[str], Part(list_of(is_text), "the names of optimizers")]
    optimizers: Annotated[list[dict[str, Any]], Part(list_of(kind(dict)), "the states of optimizers")]
    schedulers: Annotated[
        dict[str, dict[str, Any]], Part(named(kind(dict)), "the states of schedulers by their names", dict)
    ]
    topology: Annotated[dict[str, Any], Part(kind(dict), "the state of a topology")]
    random_state: Annotated[dict[str, Any], Part(kind(dict), "random states by their names")]
    record: Annotated[dict[str, Any], Part(is_record, "losses, results and times of as many epochs", dict)]
    rows: Annotated[dict[str, Any], Part(are_rows, "the tokens of fields", dict)]
    trained_on: Annotated[dict[str, Any], Part(_are_interactions, "a digest and a sample of interactions", dict)]

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "RunState":
        """The state in ``checkpoint``, in which `problem` found none."""
        return cls(**{name: checkpoint[name] for name in _PARTS})


_PARTS: dict[str, Part] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(RunState, include_extras=True).items()
}


def fill_in(checkpoint: dict[str, Any]) -> None:
    """Give ``checkpoint``, of an earlier version, the parts that it did not have yet."""
    for name, part in _PARTS.items():
        if part.earlier is not None:
            checkpoint.setdefault(name, part.earlier())


def problem(checkpoint: dict[str, Any]) -> str | None:
    """What keeps ``checkpoint`` from being a `RunState`, or None."""
    for name, part in _PARTS.items():
        if name not in checkpoint:
            return f"has no {name}"
        if not part.form(checkpoint[name]):
            return f"{name} must be {part.words}"
    return None
