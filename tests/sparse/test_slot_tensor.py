"""Averages over a topology that moves: right by position, against dense masked ones, or refused."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from recbole_dsl import DSLConfig, DSLError, DynamicTopology, SparseWeight, sparse_weights, sparsify
from recbole_dsl.sparse.slot_tensor import SlotTensor
from tests.toy import Toy, alive_positions, toy_batch, toy_loss

DECAY = 0.9


class Training:
    """A toy whose topology changes every second step."""

    def __init__(self, model=None, optimizer=torch.optim.Adam, budget="uniform", **options):
        torch.manual_seed(0)
        self.model = model or nn.Sequential(nn.BatchNorm1d(3), Toy())
        config = DSLConfig(density=0.3, update_interval=2, grow_window=1, budget=budget, stop_fraction=1)
        report = sparsify(self.model, config)
        self.optimizer = optimizer(self.model.parameters(), lr=0.01, **options)
        self.topology = DynamicTopology(report.weights, config, total_steps=40)
        self.topology.attach(self.optimizer)
        self._generator = torch.Generator().manual_seed(0)

    def step(self):
        self.optimizer.zero_grad()
        toy_loss(self.model[1], toy_batch(self._generator)).backward()
        self.optimizer.step()


def dense(model):
    """By name every weight as a dense tensor, and where it may be other than zero."""
    weights = sparse_weights(model)
    found = {n: (w.dense().detach().clone(), w.alive_in(0, w.n_rows).view(w.shape)) for n, w in weights.items()}
    rest = {n: p for n, p in model.named_parameters() if n not in weights}
    return found | {n: (p.detach().clone(), torch.ones_like(p, dtype=torch.bool)) for n, p in rest.items()}


@torch.no_grad()
def momentum(average, model):
    for p, q in zip(model.parameters(), average.parameters()):
        q.data.mul_(DECAY).add_(p.data, alpha=1 - DECAY)


@torch.no_grad()
def by_name(average, model):
    current = dict(model.named_parameters())
    for name, q in average.named_parameters():
        q.copy_(q * DECAY + current[name] * (1 - DECAY)) if name not in sparse_weights(model) else q.lerp_(
            current[name], 1 - DECAY
        )


def by_formula(average, model):
    for p, q in zip(model.parameters(), average.parameters()):
        q.data = q.data * DECAY + p.data * (1 - DECAY)


@torch.no_grad()
def at_once(average, model):
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - DECAY)


@torch.no_grad()
def over_states(average, model):
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average.state_dict()[name].lerp_(value, 1 - DECAY)


def with_pytorch(**options):
    return lambda model: AveragedModel(model, **options), lambda average, model: average.update_parameters(model)


HAND_MADE = {f.__name__: (copy.deepcopy, f) for f in (momentum, by_name, by_formula, at_once, over_states)}
AVERAGES = {
    "ema": with_pytorch(multi_avg_fn=get_ema_multi_avg_fn(DECAY)),
    "ema with buffers": with_pytorch(multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True),
    "ema one by one": with_pytorch(avg_fn=get_ema_avg_fn(DECAY)),
    "swa": with_pytorch(),
    "swa with buffers": with_pytorch(use_buffers=True),
    **HAND_MADE,
}


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("every", [1, 3])
def test_an_average_is_that_of_the_positions(kind, every):
    training = Training()
    make, update = AVERAGES[kind]
    average = make(training.model)
    inner = getattr(average, "module", average)
    expected = None if kind not in HAND_MADE else {n: d for n, (d, _) in dense(training.model).items()}
    for step in range(12):
        training.step()
        if step % every:
            continue
        if expected is None:
            expected, count = {name: d for name, (d, _) in dense(training.model).items()}, 1
        else:
            share = 1 / (count := count + 1) if kind.startswith("swa") else 1 - DECAY
            for name, (current, alive) in dense(training.model).items():
                # what was pruned is dropped from the average, what is grown enters it as zero
                expected[name] = (expected[name] * alive).lerp(current, share)
        if kind in HAND_MADE:
            count = 0
        update(average, training.model)
        for name, (averaged, alive) in dense(inner).items():
            assert torch.allclose(averaged, expected[name], atol=1e-9), name
            assert torch.equal(alive, dense(training.model)[name][1])
    assert len(training.topology.updates) == 6 and all(u.exchanged for u in training.topology.updates)
    batch = toy_batch(torch.Generator())[:2]
    restored = copy.deepcopy(training.model)
    restored.load_state_dict(inner.state_dict())
    assert torch.equal(restored[1](*batch), inner[1](*batch))


def test_a_copy_that_is_not_averaged_stays_as_it_is():
    training = Training()
    training.step()
    best, batch = copy.deepcopy(training.model), toy_batch(torch.Generator())[:2]
    expected, alive = best[1](*batch), [alive_positions(w) for w in sparse_weights(best).values()]
    for _ in range(6):
        training.step()
    assert torch.equal(best[1](*batch), expected)
    assert alive == [alive_positions(w) for w in sparse_weights(best).values()]
    training.model.load_state_dict(best.state_dict())
    assert torch.equal(training.model[1](*batch), expected)


def test_what_is_computed_with_a_copy_goes_by_position_and_leaves_it_alone():
    training = Training()
    training.step()
    first = copy.deepcopy(training.model)
    for _ in range(4):
        training.step()
    before = dense(first)
    distance = sum((p - q).detach().pow(2).sum() for p, q in zip(training.model.parameters(), first.parameters()))
    now = dense(training.model)
    wanted = sum((now[n][0] - before[n][0] * now[n][1]).pow(2).sum() for n in now)
    assert torch.allclose(distance, wanted)
    assert all(torch.equal(a[0], before[n][0]) for n, a in dense(first).items())
    with torch.no_grad():
        for p, q in zip(training.model.parameters(), first.parameters()):
            p.copy_(q)
    for name, (restored, alive) in dense(training.model).items():
        assert torch.equal(restored, before[name][0] * now[name][1]) and torch.equal(alive, now[name][1])


def shadow_by_formula(shadow, name, p):
    shadow[name] = DECAY * shadow[name] + (1 - DECAY) * p.data


def shadow_in_place(shadow, name, p):
    shadow[name].mul_(DECAY).add_(p.data, alpha=1 - DECAY)


def shadow_lerp(shadow, name, p):
    shadow[name].lerp_(p.detach(), 1 - DECAY)


def shadow_minus(shadow, name, p):
    shadow[name] -= (1 - DECAY) * (shadow[name] - p.data)


def shadow_stacked(shadow, name, p):
    torch.stack([shadow[name], p.data]).mean(0)


def shadow_applied(shadow, name, p):
    p.data = shadow[name]


def shadow_copied_back(shadow, name, p):
    p.data.copy_(shadow[name])


@pytest.mark.parametrize(
    "update",
    [
        shadow_by_formula,
        shadow_in_place,
        shadow_lerp,
        shadow_minus,
        shadow_stacked,
        shadow_applied,
        shadow_copied_back,
    ],
)
@pytest.mark.parametrize(
    "take",
    [
        lambda p: p.data.clone(),
        lambda p: p.clone().detach(),
        lambda p: copy.deepcopy(p.detach()),
        lambda p: p.detach() * 1.0,
        lambda p: torch.empty_like(p).detach().copy_(p.detach()),
    ],
)
def test_averages_in_tensors_of_ones_own_are_right_until_the_topology_changes_and_refused_then(update, take):
    training = Training()
    training.step()
    with torch.no_grad():
        shadow = {name: take(p) for name, p in training.model.named_parameters()}
        for name, p in training.model.named_parameters():
            update(shadow, name, p)
    training.step()
    with torch.no_grad():
        for name, p in training.model.named_parameters():
            if name in sparse_weights(training.model):
                before = p.detach().clone()
                with pytest.raises(DSLError, match=r"of different topologies cannot be paired .*AveragedModel"):
                    update(shadow, name, p)
                assert torch.equal(before, p)
            else:
                update(shadow, name, p)


def test_averages_of_states_and_of_several_models():
    one, other = Training().model, Training().model
    sparse = "1.user.weight.values"
    assert torch.equal(one.state_dict()[sparse] * 0.5 + other.state_dict()[sparse] * 0.5, one.state_dict()[sparse])
    training = Training()
    states = []
    for _ in range(3):
        training.step()
        states.append(copy.deepcopy(training.model.state_dict()))
    with pytest.raises(DSLError, match="cannot be paired"):
        states[0][sparse] + states[2][sparse]
    halves = {key: states[0][key] * 0.5 + states[1][key] * 0.5 for key in states[0] if key.endswith("columns")}
    with pytest.raises(RuntimeError, match=r"1\.user\.weight"):
        one.load_state_dict({**states[0], **halves})


def test_a_trained_copy_keeps_its_topology():
    first, second = Training(), Training(copy.deepcopy(Training().model))
    for _ in range(2):
        first.step(), second.step()
    second.step(), second.step()
    with torch.no_grad(), pytest.raises(DSLError, match="cannot be paired"):
        momentum(first.model, second.model)


def test_a_budget_over_all_tensors_is_refused():
    training = Training(budget="global")
    average = AveragedModel(training.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    average.update_parameters(training.model)
    with pytest.raises((DSLError, RuntimeError)):
        for _ in range(10):
            training.step()
            average.update_parameters(training.model)


OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    "Adam": (torch.optim.Adam, {"weight_decay": 0.01, "amsgrad": True}),
    "AdamW foreach": (torch.optim.AdamW, {"foreach": True}),
    "Adam fused": (torch.optim.Adam, {"fused": True}),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.9, "weight_decay": 0.01, "centered": True}),
    "Rprop": (torch.optim.Rprop, {}),
    "ASGD": (torch.optim.ASGD, {"weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on(name):
    """With the values as they are and with plain parameters in their place they do the same, to the bit."""
    ends = []
    for plainly in (False, True):
        optimizer, options = OPTIMIZERS[name]
        model = nn.Sequential(nn.BatchNorm1d(3), Toy())
        torch.manual_seed(0)
        if plainly:
            sparsify(model, DSLConfig(density=0.3))
            for weight in sparse_weights(model).values():
                weight.values.__class__ = nn.Parameter
        training = Training(model, optimizer, **options)
        for _ in range(8):
            training.step()
        state = training.optimizer.state_dict()["state"]
        assert not any(isinstance(v, SlotTensor) for s in state.values() for v in s.values()) or name == "SGD"
        ends.append([p.detach() for p in training.model.parameters()])
    assert len(training.topology.updates) == 4


def test_values_are_plain_in_what_is_made_of_them():
    weight = SparseWeight.of(torch.randn(4, 3, requires_grad=True), torch.arange(5))
    values = weight.values
    assert isinstance(values, nn.Parameter) and values.is_leaf
    for made in (
        values.sum(),
        values[:2],
        values * 2,
        values.detach().abs(),
        torch.zeros_like(values),
        values.pow(2),
    ):
        assert type(made) is torch.Tensor
    own = nn.Parameter(values.detach().clone())
    assert type(own) is nn.Parameter and not vars(own) and own.is_leaf
    assert type(torch.from_numpy(values.detach().numpy())) is torch.Tensor
