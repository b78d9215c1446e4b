"""Every option of Dynamic Sparse Learning: its type, default, meaning and limits."""

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from recbole_dsl.errors import DSLError, refusal

TOPOLOGIES = ("dynamic", "fixed")
WARM_START_ROWS = ("recode", "fold_in", "random")
# the largest number that any option may have
_LARGEST = 2**63 - 1


Check = Callable[[str, Any], Any]


def _option(default: Any, check: Check, help: str) -> Any:
    """An option; ``check`` turns its name and value into what is kept. None is allowed where it is the default."""
    return field(default=default, metadata={"help": help, "check": check})


def _number(kind: type, allowed: str, accepts: Callable[[Any], bool]) -> Check:
    def check(name: str, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and _LARGEST < value < math.inf and accepts(_LARGEST):
            raise refusal(name, value, f"at most {_LARGEST}")
        is_number = is_number and (isinstance(value, int) or math.isfinite(value))
        if not is_number or not accepts(value) or (kind is int and value != int(value)):
            raise refusal(name, value, allowed)
        return kind(value)

    return check


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    given = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(v, str) and v for v in given):
        raise refusal(name, value, "names or patterns, as a list or separated by commas")
    return tuple(given)


def _choice(name: str, value: Any) -> str:
    known = _choices()[name]
    if not isinstance(value, str) or value not in known:
        raise refusal(name, value, "one of " + ", ".join(known))
    return value


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refusal(name, value, "the path of a file")
    return value


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refusal(name, value, "True or False")
    return value


_share = _number(float, "a number in [0, 1]", lambda v: 0 <= v <= 1)
_positive_share = _number(float, "a number in (0, 1]", lambda v: 0 < v <= 1)
_count = _number(int, "an integer >= 1", lambda v: v >= 1)


@dataclass(frozen=True)
class DSLConfig:
    """The options of Dynamic Sparse Learning (Wang et al. 2024); `describe_options` explains each.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """

    density: float = _option(0.1, _positive_share, "Alive weights / all weights of the sparse tensors, in (0, 1].")
    weights: int | None = _option(
        None,
        _count,
        "Number of alive weights of all sparse tensors together, instead of density. It stays the same when users "
        "and items come and go.",
    )
    targets: tuple[str, ...] | None = _option(
        None,
        _patterns,
        "Names or patterns (*, ?) of the parameters or whole modules to make sparse. "
        "None: every weight of two or more dimensions that can be sparse, except those of a single row.",
    )
    exclude: tuple[str, ...] = _option(
        (), _patterns, "Names or patterns of modules or parameters that stay dense."
    )
    sparse_init: str | None = _option(
        None,
        _choice,
        "Which weights are alive first. svd: the largest entries of a factorisation of the training data, with "
        "their values, in tables of users and items and in linear layers from or to all of them; the same first "
        "columns of every row in field tables of models with a factorisation machine; elsewhere at random. "
        "uniform: at random. erk: at random, small tensors denser. magnitude: the largest of the dense model. "
        "None: magnitude for pretrained tensors, svd for those fresh from an initialiser.",
    )
    budget: str | None = _option(
        None,
        _choice,
        "How tensors share the alive weights. uniform: the same density for all. erk: small tensors are denser. "
        "global: topology updates move weights between tensors. None: erk with sparse_init=erk, else uniform.",
    )
    item_density_ratio: float | None = _option(
        None,
        _positive_share,
        "Density of the table of items / density of the table of users, in (0, 1], once a model that is nothing "
        "else, as BPR, starts with sparse_init=svd; if half of the users have 32 interactions or more, and not "
        "with budget=erk. The weights in all stay. None: density to the power 0.3.",
    )
    keep_rows: bool = _option(
        False,
        _yes_or_no,
        "Whether every row always keeps an alive weight, so that no user or item is without a vector. Needs at "
        "least as many weights as rows.",
    )
    topology: str = _option("dynamic", _choice, "dynamic: prune and grow. fixed: keep the first topology.")
    update_interval: int | None = _option(
        None,
        _count,
        "Optimizer steps between two topology updates, at least 1. None: 1/32 of the training, in sequential "
        "models at most an epoch.",
    )
    update_ratio: float | None = _option(
        None,
        _share,
        "Share of alive weights exchanged at the first update, in [0, 1]. None: 0.1, in sequential models 0.5.",
    )
    schedule: str = _option(
        "cosine", _choice, "How the update ratio falls: cosine or linear to 0.005, or constant."
    )
    stop_fraction: float = _option(
        0.75, _share, "Share of the training, in [0, 1], after which the topology stays. The schedule ends there."
    )
    prune: str = _option(
        "magnitude",
        _choice,
        "What is pruned. magnitude: smallest |w|. set: the same, for positive and negative weights separately. "
        "taylor: smallest |w * gradient|. threshold: smallest |w| below prune_threshold.",
    )
    prune_threshold: float = _option(
        1e-3,
        _number(float, "a number >= 0", lambda v: v >= 0),
        "With prune=threshold: weights of this magnitude or more are kept.",
    )
    grow: str = _option(
        "gradient",
        _choice,
        "What is grown. gradient: largest |sum of gradients|. momentum: largest |moving average of gradients|. "
        "random: any position. random_unfired: positions that were never alive come first.",
    )
    grow_window: int | None = _option(
        None,
        _count,
        "Steps before an update whose gradients are summed for growth, at most update_interval. None: 200 with "
        "grow=gradient, 50 with grow=momentum. If a tensor would take more than 16 MB dense, None is at most a "
        "tenth of update_interval.",
    )
    grow_memory: float | None = _option(
        None,
        _positive_share,
        "Limit of the memory for these gradients, in (0, 1], as a share of the dense tensor. If not all rows "
        "fit, a random sample of rows is kept. None: 0.2, or 16 MB if that is more.",
    )
    warm_start: str | None = _option(
        None,
        _path,
        "An earlier checkpoint of the same model to train on from: the best epoch (.pth) or the last state "
        "(.last). Tokens decide which row belongs to whom. The default of topology is then fixed.",
    )
    warm_start_rows: str | None = _option(
        None,
        _choice,
        "How a warm start fills rows. recode: all rows get new codes from the old codes and today's interactions; "
        "only for models that multiply a table of users by one of items. fold_in: old rows keep their weights, "
        "new rows are computed from their interactions, or are the mean. random: new rows are random. "
        "None: recode if the model allows it and its tables are sparse, else fold_in.",
    )
    fast_graph: bool = _option(
        True,
        _yes_or_no,
        "Whether graph models store propagation matrices in compressed rows (CSR). The results are the same.",
    )
    trim_padding: bool = _option(
        True,
        _yes_or_no,
        "Whether sequential models read histories of similar length together, without their padding, on a CPU. "
        "The vectors are the same; dropout draws other random numbers. Never at density 1, where all numbers are "
        "RecBole's.",
    )
    dropout_factor: float | None = _option(
        None,
        _share,
        "What the probability of each dropout layer is multiplied by, in [0, 1], as sparse weights overfit less. "
        "None: density to the power 0.4 in models of the next item with two dropout layers or more, as SASRec, "
        "else 1.",
    )
    seed: int = _option(
        2020, _number(int, "an integer >= 0", lambda v: v >= 0), "Seed of the topology; RecBole's own option."
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.default is not None:
                object.__setattr__(self, option.name, option.metadata["check"](option.name, value))
        if self.budget is None:
            object.__setattr__(self, "budget", "erk" if self.sparse_init == "erk" else "uniform")
        if self.sparse_init == "erk" and self.budget == "uniform":
            raise refusal("budget", self.budget, "erk or global with sparse_init=erk")

    @classmethod
    def build(cls, source: Mapping[str, Any] | None = None, **options: Any) -> "DSLConfig":
        """Take the options that ``source`` has, a RecBole Config or a dict, and then ``options`` on top.

        Other names in ``source`` are not ours and are ignored; an unknown keyword raises a DSLError.
        """
        for name in options:
            if name not in OPTIONS:
                raise unknown_option(name, OPTIONS)
        found = {name: source[name] for name in OPTIONS if source is not None and name in source}
        return cls(**{**found, **options})

    def to_dict(self) -> dict[str, Any]:
        """The options as plain data (numbers, strings, lists, None)."""
        plain = {name: getattr(self, name) for name in OPTIONS}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}


def describe_options() -> str:
    """One paragraph per option: how it is given, its default and its meaning."""
    return "\n".join(f"  --{f.name}={f.default}\n      {f.metadata['help']}" for f in fields(DSLConfig))


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that looks like one of our options mistyped.

    Args:
        given: option names that the user wrote.
        known: the names of the framework's own options, which are left alone.

    Raises:
        DSLError: naming the nearest option.
    """
    known = set(known)
    for name in given:
        if name not in OPTIONS and name not in known and nearest(name, OPTIONS):
            raise unknown_option(name, OPTIONS)


def nearest(name: str, known: Iterable[str], alike: float = 0.75) -> str | None:
    """The entry of ``known`` that ``name`` is probably a mistyping of, at least so much ``alike``, or None."""
    by_lower_case = {entry.lower(): entry for entry in known}
    matches = difflib.get_close_matches(_plain(name), by_lower_case, n=1, cutoff=alike)
    return by_lower_case[matches[0]] if matches else None


def unknown_option(name: str, known: Iterable[str], alike: float = 0.75) -> DSLError:
    """The error for an option that does not exist."""
    match = nearest(name, known, alike)
    hint = f"did you mean {match}?" if match else f"the options are {', '.join(known)}"
    return DSLError(f"unknown option {name}: {hint}")


DEFAULTS = {f.name: f.default for f in fields(DSLConfig)}
OPTIONS = tuple(DEFAULTS)


@cache
def _choices() -> dict[str, Iterable[str]]:
    from recbole_dsl.initialisation.masks import INITIALISERS
    from recbole_dsl.topology.budget import BUDGETS
    from recbole_dsl.topology.grow_criteria import GROW
    from recbole_dsl.topology.prune_criteria import PRUNE
    from recbole_dsl.topology.schedule import SCHEDULES

    return {
        "sparse_init": INITIALISERS,
        "budget": BUDGETS,
        "topology": TOPOLOGIES,
        "schedule": SCHEDULES,
        "prune": PRUNE,
        "grow": GROW,
        "warm_start_rows": WARM_START_ROWS,
    }


def command_line_options(words: Iterable[str] | None = None) -> dict[str, str]:
    """The options among ``words``, those of this process if None: all that are ``--name=value``.

    They are for ``config_dict``, which reads a string as RecBole reads a word of the command line.
    """
    words = getattr(sys, "argv", [])[1:] if words is None else words
    # with more than one = RecBole reads none
    given = [word[2:].split("=") for word in words if word.startswith("--") and word.count("=") == 1]
    return dict(given)


def _plain(name: str) -> str:
    """``name`` as options are written."""
    return str(name).lower().replace("-", "_").strip("_ ")
