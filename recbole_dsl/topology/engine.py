"""The topology update: when it comes, what it prunes and grows, and the record of it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Callable, Optional

import torch

from recbole_dsl.config import DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.gradients import GradientBuffer
from recbole_dsl.topology.grow import GROW, Block, Candidates, best_candidates
from recbole_dsl.topology.prune import PRUNE, AliveWeights, best_of_each_row, least_important
from recbole_dsl.topology.schedule import update_ratio

# positions scored at a time: bounds the memory of a topology update
_BLOCK = 2**22


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

    Every ``update_interval`` optimizer steps the least important weights are exchanged for as many
    inactive ones; the number of alive weights never changes. With ``topology=fixed`` nothing is exchanged.

    Attributes:
        step: optimizer steps counted so far.
        updates: every `TopologyUpdate` so far.
        on_update: called with each new `TopologyUpdate`.
    """

    def __init__(
        self,
        weights: Mapping[str, SparseWeight],
        config: DSLConfig,
        total_steps: Optional[int] = None,
        on_update: Callable[[TopologyUpdate], None] = lambda update: None,
    ):
        self.weights = dict(weights)
        self.config = config
        self.on_update = on_update
        self._total_steps = total_steps
        self.step = 0
        self.updates: list[TopologyUpdate] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self._buffers: dict[str, GradientBuffer] = {}
        self._peak_bytes: dict[str, int] = {}
        # not the stream that drew the initial topology
        self._generator = torch.Generator().manual_seed(config.seed + 1)
        self._explored: dict[str, Explored] = {}
        for name, weight in self.weights.items():
            self._explored[name] = Explored(weight.numel, weight.values.device)
            self._explored[name].mark(weight.positions())

    @property
    def total_steps(self) -> Optional[int]:
        """Optimizer steps of the whole training, over which the schedule anneals."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, steps: int) -> None:
        self._total_steps = steps
        self._collect_if_due()

    @property
    def exploration_rate(self) -> float:
        """R: share of all weights of the sparse tensors that were alive at least once (Liu et al. 2021)."""
        size = sum(weight.numel for weight in self.weights.values())
        return sum(explored.count for explored in self._explored.values()) / size

    @property
    def growth_peak_bytes(self) -> int:
        """The most memory that collecting gradients for growth has taken so far."""
        return sum(self._peak_bytes.values())

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the steps of ``optimizer`` and update the topology after them; several may be attached."""
        self.optimizers.append(optimizer)
        optimizer.register_step_post_hook(lambda *_: self._after_step())
        self._collect_if_due()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data with which a resumed run makes the same updates."""
        return {
            "step": self.step,
            "generator": self._generator.get_state(),
            "explored": {name: explored.bits for name, explored in self._explored.items()},
            "updates": [asdict(update) for update in self.updates],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict`. Gradients of a window that had begun are not part of it."""
        self.step = state["step"]
        self._generator.set_state(state["generator"].cpu())
        for name, explored in self._explored.items():
            explored.load(state["explored"][name])
        self.updates = [TopologyUpdate(**update) for update in state["updates"]]
        self._stop_collecting()
        self._collect_if_due()

    def _after_step(self) -> None:
        self.step += 1
        if self._updates_at(self.step):
            self._update()
        elif self._buffers and self._criterion.decay != 1:
            for buffer in self._buffers.values():
                buffer.decay(self._criterion.decay)
        self._collect_if_due()

    @property
    def _criterion(self):
        return GROW[self.config.grow]

    def _updates_at(self, step: int) -> bool:
        if self.config.topology == "fixed" or step % self.config.update_interval:
            return False
        if self.total_steps is None:
            raise DSLError("total_steps=None: give the number of optimizer steps of the whole training")
        return step < self.config.stop_fraction * self.total_steps

    def _collect_if_due(self) -> None:
        interval = self.config.update_interval
        until_update = interval - self.step % interval
        if self._buffers or not self._criterion.needs_gradient or until_update > self.config.grow_window:
            return
        if self.total_steps is None or not self._updates_at(self.step + until_update):
            return
        for name, weight in self.weights.items():
            buffer = GradientBuffer(
                weight.n_rows, weight.n_columns, weight.values, self.config.grow_memory, self._generator
            )
            self._buffers[name] = buffer
            weight.gradient_sink = buffer.add

    def _stop_collecting(self) -> None:
        for name, buffer in self._buffers.items():
            self._peak_bytes[name] = max(self._peak_bytes.get(name, 0), buffer.peak_bytes)
            self.weights[name].gradient_sink = None
        self._buffers.clear()

    @torch.no_grad()
    def _update(self) -> None:
        progress = self.step / (self.config.stop_fraction * self.total_steps)
        ratio = update_ratio(self.config.schedule, self.config.update_ratio, progress)
        for buffer in self._buffers.values():
            buffer.reduce()
        # a tensor that the last step did not train has nothing to choose by, and would lose its initial values
        names = [name for name, weight in self.weights.items() if weight.values.grad is not None]
        groups = [names] if self.config.budget == "global" else [[name] for name in names]
        exchanged = sum(self._exchange(group, ratio) for group in groups if group)
        self._stop_collecting()
        density = {name: weight.density for name, weight in self.weights.items()}
        update = TopologyUpdate(self.step, ratio, exchanged, self.exploration_rate, density)
        self.updates.append(update)
        self.on_update(update)

    def _exchange(self, names: list[str], ratio: float) -> int:
        """Exchange weights among the tensors ``names``, whose budget is one; return how many."""
        weights = [self.weights[name] for name in names]
        importance = [PRUNE[self.config.prune](self._alive(weight)) for weight in weights]
        nnz = [weight.nnz for weight in weights]
        first_slots = [sum(nnz[:i]) for i in range(len(nnz))]
        protected = []
        if self.config.keep_rows:
            protected = [best_of_each_row(i, w.row_of_slots()) for i, w in zip(importance, weights)]
        elif len(weights) > 1:
            # no tensor may be emptied: its output and its gradients would stay zero for ever
            protected = [i.argmax().view(1) for i in importance]
        protected = [slots + first for slots, first in zip(protected, first_slots)]
        free = sum(weight.capacity for weight in weights) - sum(nnz)
        n = max(0, min(round(ratio * sum(nnz)), free))
        pruned = least_important(torch.cat(importance), n, torch.cat(protected) if protected else None)
        grown = best_candidates(lambda: self._blocks(names), self._criterion.score, len(pruned))
        grown = grown.to(pruned.device)
        first_slot = first_position = 0
        for name, weight, size in zip(names, weights, nnz):
            mine = pruned[(pruned >= first_slot) & (pruned < first_slot + size)] - first_slot
            last_position = first_position + weight.numel
            new = grown[(grown >= first_position) & (grown < last_position)] - first_position
            states = [o.state[weight.values] for o in self.optimizers if weight.values in o.state]
            weight.exchange(mine, new, states)
            self._explored[name].mark(new)
            first_slot, first_position = first_slot + size, last_position
        return len(pruned)

    def _alive(self, weight: SparseWeight) -> AliveWeights:
        values = weight.values.detach()
        return AliveWeights(values, weight.values.grad, self.config.prune_threshold)

    def _blocks(self, names: list[str]) -> Iterator[Block]:
        first = 0
        for name in names:
            weight, explored, buffer = self.weights[name], self._explored[name], self._buffers.get(name)
            height = max(1, _BLOCK // weight.n_columns)
            for start in range(0, weight.n_rows, height):
                stop = min(start + height, weight.n_rows)
                blocked = weight.alive_in(start, stop)
                if weight.padding_row is not None and start <= weight.padding_row < stop:
                    blocked[weight.padding_row - start] = True
                span = start * weight.n_columns, stop * weight.n_columns
                ever_alive = explored.marked_in(*span).view_as(blocked)
                if buffer is None:
                    gradient = weight.values.new_zeros(()).expand(blocked.shape)
                else:
                    gradient = buffer.rows(start, stop)
                yield Block(Candidates(gradient, ever_alive, self._generator), blocked, first + span[0])
            first += weight.numel
