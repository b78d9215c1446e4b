"""How a search goes, as its user says it, and what an engine is to search."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_dsl.errors import refusal
from recbole_dsl.options.rules import NAME, Rule, integer, number, one_of, optional
from recbole_dsl.tuning.parameters import Parameter


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes; ``recbole-dsl tune --help`` explains each setting.

    Raises:
        DSLError: naming the setting, its value and what is allowed.
    """

    params_file: str | None = None
    engine: str = "hyperopt"
    algo: str | None = None
    trials: int | None = None
    early_stop: int | None = None
    output: str | None = None
    scheduler: str = "fifo"
    trial_cpus: float = 1
    trial_gpus: float | None = None
    address: str | None = None
    max_failures: int = 3

    def __post_init__(self):
        for name, rule in _RULES.items():
            rule.check(name, getattr(self, name))
        only = {"hyperopt": ("early_stop",), "ray": _OF_RAY}
        for engine, names in only.items():
            for name in names:
                if self.engine != engine and getattr(self, name) != getattr(SearchSettings, name):
                    raise refusal(name, getattr(self, name), f"left out: only engine={engine} takes it")
        if self.engine == "ray" and self.algo == "bayes":
            raise refusal("algo", self.algo, "exhaustive or random with engine=ray")


_OF_RAY = ("scheduler", "trial_cpus", "trial_gpus", "address", "max_failures")
_RULES = {
    "params_file": NAME,
    "engine": one_of("hyperopt", "ray"),
    "algo": optional(one_of("exhaustive", "random", "bayes")),
    "trials": optional(integer(1)),
    "early_stop": optional(integer(1)),
    "output": optional(NAME),
    "scheduler": one_of("asha", "fifo"),
    "trial_cpus": number(0, above=True),
    "trial_gpus": optional(number(0)),
    "address": optional(
        Rule(
            "HOST:PORT or auto, of a cluster that this machine is a node of",
            lambda v: v == "auto" or re.fullmatch(r"[^/\s]+:\d{1,5}", v),
        )
    ),
    "max_failures": integer(0),
}
SETTINGS = tuple(_RULES)


@dataclass(frozen=True)
class Search:
    """What an engine searches.

    Attributes:
        parameters: what varies.
        algo: "exhaustive", "random" or "bayes".
        most: how many trials there are at most.
        draws: with Ray the options of each trial, those that all share left out.
        options: those that all trials share, every path in them absolute.
        bigger: whether a larger score is better.
        evaluations: how many a trial has at most.
        seed: of what is drawn.
    """

    settings: SearchSettings
    parameters: Sequence[Parameter]
    algo: str
    most: int
    draws: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    bigger: bool
    evaluations: int
    seed: int
