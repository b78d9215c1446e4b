"""The topology update: when it comes, what it prunes and grows, and the record of it."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.blocks import Part, Rules
from recbole_dsl.topology.exchange import exchange
from recbole_dsl.topology.explored import Explored, record_problem
from recbole_dsl.topology.gradients import GradientBuffer, is_distributed, window_problem
from recbole_dsl.topology.grow_criteria import GROW, GrowCriterion
from recbole_dsl.topology.processes import decided_by_first, refuse_different_topologies, take_entries_of_first
from recbole_dsl.topology.prune_criteria import PRUNE
from recbole_dsl.topology.schedule import FIRST_RATIO, FIRST_RATIO_OF_EPOCHS, update_ratio
from recbole_dsl.topology.taken_steps import StepGradients, scaler_at_work, was_skipped

# defaults of options: grow_memory, as a share of a dense tensor or, if that is more, in bytes;
_SHARE, _SMALL = 0.2, 2**24
# update_interval, as a part of the training; grow_window, as a part of the interval where a tensor is not small
_UPDATES, _COLLECTED = 32, 10


@dataclass(frozen=True)
class TopologyUpdate:
    """What one topology update did.

    Attributes:
        step: optimizer steps taken before it.
        ratio: share of alive weights it was to exchange.
        exchanged: number of weights pruned, and as many grown.
        exploration_rate: share of all weights alive at least once so far (R).
        density: density of each sparse tensor after it, by name.
    """

    step: int
    ratio: float
    exchanged: int
    exploration_rate: float
    density: dict[str, float]


class DynamicTopology:
    """Prunes and grows the sparse weights of a model while an optimizer trains it (Wang et al. 2024, Alg. 1).

        report = sparsify(model, config)
        topology = DynamicTopology(report.weights, config, total_steps=10_000)
        topology.attach(optimizer)

    Every `update_interval` optimizer steps the least important weights are exchanged for as many
    inactive ones; the number of alive weights never changes. With ``topology=fixed`` nothing is exchanged.

    Args:
        weights: by name.
        config: a `DSLConfig`.
        total_steps: optimizer steps of the whole training, if they are known yet.
        on_update: called with each new `TopologyUpdate`.

    Attributes:
        step: optimizer steps counted so far.
        epochs: of the training, if each is to have an update at least, and a large one; None by default.
        updates: every `TopologyUpdate` so far.
    """

    def __init__(
        self,
        weights: Mapping[str, SparseWeight],
        config: Any,
        total_steps: int | None = None,
        on_update: Callable[[TopologyUpdate], None] = lambda update: None,
    ):
        self.weights = dict(weights)
        for weight in self.weights.values():
            weight.is_trained = True
        self.config = config
        self.on_update = on_update
        self._total_steps = total_steps
        self.step = 0
        self.epochs: int | None = None
        self.updates: list[TopologyUpdate] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self._collected: dict[str, StepGradients] = {}
        # whether the last step had a gradient scaler; None before the first
        self._has_scaler: bool | None = None
        self._peak_bytes: dict[str, int] = {}
        self._is_compared = False
        self._resumed_windows: dict[str, dict[str, Any]] = {}
        # not the stream that drew the initial topology
        self._generator = torch.Generator().manual_seed(config.seed + 1)
        self._explored: dict[str, Explored] = {}
        self.restart()

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole training, over which the schedule anneals."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, steps: int) -> None:
        self._total_steps = steps
        self._collect_if_due()

    @property
    def update_interval(self) -> int | None:
        """Optimizer steps between updates: the option, or a 32nd of the training; None while that is not known.

        With `epochs`, at most one of them.
        """
        if self.config.update_interval is None and self.total_steps is not None:
            return max(1, self.total_steps // max(_UPDATES, self.epochs or 0))
        return self.config.update_interval

    @property
    def first_ratio(self) -> float:
        """Share of alive weights that the first update exchanges: the option, or a tenth, with `epochs` a half."""
        if self.config.update_ratio is not None:
            return self.config.update_ratio
        return FIRST_RATIO if self.epochs is None else FIRST_RATIO_OF_EPOCHS

    @property
    def grow_window(self) -> int:
        """Steps before an update whose gradients are collected: the option, or what takes little of the time."""
        if self.config.grow_window is not None:
            return self.config.grow_window
        are_small = all(_dense_bytes(weight) <= _SMALL for weight in self.weights.values())
        most = self._criterion.window if are_small else max(1, self.update_interval // _COLLECTED)
        return min(self._criterion.window, most)

    @property
    def exploration_rate(self) -> float:
        """R: share of all weights of the sparse tensors that were alive at least once (Liu et al. 2021).

        Exact while nothing was exchanged, and for tensors of up to 2**20 weights; see `Explored` for larger ones.
        """
        size = sum(weight.numel for weight in self.weights.values())
        count = sum(weight.nnz for name, weight in self.weights.items() if name not in self._explored)
        return (count + sum(explored.count for explored in self._explored.values())) / size

    @property
    def record_bytes(self) -> int:
        """Bytes of the record of what was ever alive."""
        return sum(explored.bits.numel() for explored in self._explored.values())

    @property
    def growth_peak_bytes(self) -> int:
        """The most bytes that collecting gradients for growth has taken so far."""
        return sum(self._peak_bytes.values())

    def restart(self) -> None:
        """Take the present topology, changed from outside before the first step, for the initial one."""
        if self.config.topology != "fixed":
            exact = self._criterion.needs_record
            self._explored = {name: Explored(weight, exact) for name, weight in self.weights.items()}

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the steps of ``optimizer`` and update the topology after them; several may be attached.

        Raises:
            DSLError: if the model was made dense since.
        """
        replaced = [name for name, weight in self.weights.items() if weight.is_replaced]
        if replaced:
            raise DSLError(f"{replaced[0]}: is dense since densify() and has no topology; sparsify() again")
        self.optimizers.append(optimizer)
        optimizer.register_step_post_hook(lambda optimizer, *_: self._after_step(optimizer))
        self._collect_if_due()

    def pool_windows(self) -> None:
        """Pool the gradients that several processes have summed so far, so that what one saves is that of all."""
        for collected in self._collected.values():
            collected.buffer.pool()

    def state_dict(self, with_window: bool = True) -> dict[str, Any]:
        """Tensors and plain data with which a resumed run makes the same updates.

        Args:
            with_window: whether to include the gradients summed since a window began, as much memory as
                ``grow_memory`` allows; without them the window begins anew.
        """
        return {
            "step": self.step,
            "has_scaler": self._has_scaler,
            "generator": self._generator.get_state(),
            "explored": {name: explored.bits for name, explored in self._explored.items()},
            "explored_count": {name: explored.count for name, explored in self._explored.items()},
            "updates": [asdict(update) for update in self.updates],
            "window": {name: one.buffer.state_dict() for name, one in self._collected.items() if with_window},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, in the middle of a window too."""
        self.step, self._has_scaler = state["step"], state.get("has_scaler")
        self._generator.set_state(state["generator"].cpu())
        for name, explored in self._explored.items():
            if name in state["explored"]:
                explored.load(state["explored"][name], state.get("explored_count", {}).get(name))
            else:
                self._explored[name] = Explored(self.weights[name], self._criterion.needs_record)
        self.updates = [TopologyUpdate(**update) for update in state["updates"]]
        self._stop_collecting()
        # the buffers are made when it is known how long the training is
        self._resumed_windows = dict(state.get("window", {}))
        self._collect_if_due()

    def record_problem(self, explored: Any, counts: Any, has_changed: bool) -> str | None:
        """Why ``explored`` and ``counts`` are not those of a `state_dict`, or None.

        Args:
            has_changed: whether the topology has ever changed; if not, the record may be missing.
        """
        if not isinstance(explored, dict) or not isinstance(counts, dict):
            return "topology: explored and explored_count must be of tensors by name"
        wanted = self._explored if has_changed else {}
        if not set(wanted) <= set(explored) <= set(self.weights):
            return f"topology: explored must be of {', '.join(self.weights)}"
        for name, bits in explored.items():
            own = self._explored.get(name)
            problem = record_problem(self.weights[name], own and own.stride, bits, counts.get(name))
            if problem:
                return f"topology: explored {name} {problem}"
        return None

    def window_problem(self, windows: Any) -> str | None:
        """Why ``windows`` are not those of a `state_dict`, or None."""
        if not isinstance(windows, dict):
            return "topology: window must be sums of gradients by name"
        for name, window in windows.items():
            if name not in self.weights:
                return f"topology: window {name!r:.80} is unknown"
            problem = window_problem(window, self.weights[name])
            if problem:
                return f"topology: window {name}: {problem}"
        return None

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        scaler = scaler_at_work()
        self._has_scaler = scaler is not None
        if scaler is not None and was_skipped(optimizer):
            for collected in self._collected.values():
                collected.drop()
            return
        for collected in self._collected.values():
            collected.count(scaler)
        if not self._is_compared:
            self._refuse_without_data()
            refuse_different_topologies(self.weights, self.step)
            self._is_compared = True
        self.step += 1
        if is_distributed() and self.update_interval and self.step % self.update_interval == 0:
            # even while the topology does not change
            take_entries_of_first(self.weights, {name: self._states(name) for name in self.weights}, self.step)
        if self._updates_at(self.step):
            self._update()
        elif self._collected and self._criterion.decay != 1:
            for collected in self._collected.values():
                collected.buffer.decay(self._criterion.decay)
        self._collect_if_due()

    def _refuse_without_data(self) -> None:
        """Refuse ``sparse_init=svd``, if it was asked for and nothing has given the weights their factors."""
        waiting = [name for name, weight in self.weights.items() if weight.awaits_data]
        if self.config.sparse_init == "svd" and waiting:
            raise DSLError(
                f"sparse_init=svd: must be another in a training without DSLTrainer, which gives {waiting[0]} the "
                "factors of the interactions"
            )

    @property
    def _criterion(self) -> GrowCriterion:
        return GROW[self.config.grow]

    def _updates_at(self, step: int) -> bool:
        if self.config.topology == "fixed":
            return False
        if self.total_steps is None:
            if self.update_interval is None or step % self.update_interval == 0:
                raise DSLError("total_steps=None: give the number of optimizer steps of the whole training")
            return False
        return step % self.update_interval == 0 and step < self.config.stop_fraction * self.total_steps

    def _collect_if_due(self) -> None:
        if self._collected or not self._criterion.needs_gradient or self.total_steps is None:
            return
        until_update = self.update_interval - self.step % self.update_interval
        if until_update > self.grow_window or not self._updates_at(self.step + until_update):
            return
        for name, weight in self.weights.items():
            if weight.nnz < weight.capacity:
                share = self.config.grow_memory
                if share is None:
                    share = max(_SHARE, min(1.0, _SMALL / _dense_bytes(weight)))
                # by its end, so that a resumed run draws the same rows
                window = (self.step + until_update + self.config.seed) % 2**31
                buffer = GradientBuffer(weight.n_rows, weight.n_columns, weight.values, share, window)
                if name in self._resumed_windows:
                    buffer.load_state_dict(self._resumed_windows[name])
                self._collected[name] = StepGradients(weight, buffer, self._has_scaler is not False)
        self._resumed_windows = {}

    def _stop_collecting(self) -> None:
        for name, collected in self._collected.items():
            self._peak_bytes[name] = max(self._peak_bytes.get(name, 0), collected.buffer.peak_bytes)
            collected.close()
        self._collected.clear()

    @torch.no_grad()
    def _update(self) -> None:
        progress = self.step / (self.config.stop_fraction * self.total_steps)
        ratio = update_ratio(self.config.schedule, self.first_ratio, progress)
        # a tensor that the last step did not train has nothing to choose by
        trained = [_was_trained(weight) for weight in self.weights.values()]
        if is_distributed():
            ratio, *trained = decided_by_first([ratio, *trained], self.weights)
        for collected in self._collected.values():
            collected.buffer.reduce()
        names = [name for name, is_trained in zip(self.weights, trained) if is_trained]
        groups = [names] if self.config.budget == "global" else [[name] for name in names]
        options = self.config.prune_threshold, self.config.keep_rows
        rules = Rules(PRUNE[self.config.prune], self._criterion, *options, self._generator)
        exchanged = sum(exchange([self._part(name) for name in group], ratio, rules) for group in groups if group)
        self._stop_collecting()
        refuse_different_topologies(self.weights, self.step)
        density = {name: weight.density for name, weight in self.weights.items()}
        update = TopologyUpdate(self.step, ratio, exchanged, self.exploration_rate, density)
        self.updates.append(update)
        self.on_update(update)

    def _part(self, name: str) -> Part:
        buffer = self._collected[name].buffer if name in self._collected else None
        return Part(self.weights[name], self._explored[name], buffer, self._states(name))

    def _states(self, name: str) -> list[MutableMapping]:
        """What the optimizers keep for one weight."""
        values = self.weights[name].values
        return [o.state[values] for o in self.optimizers if values in o.state]


def _was_trained(weight: SparseWeight) -> bool:
    """Whether the last step did; with several processes an untrained weight has a gradient of zeros."""
    gradient = weight.values.grad
    return gradient is not None and (not is_distributed() or bool(gradient.any()))


def _dense_bytes(weight: SparseWeight) -> int:
    return weight.numel * weight.values.element_size()
