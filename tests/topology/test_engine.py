import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.config import TOPOLOGIES
from recbole_dsl.initialisation.masks import INITIALISERS
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.topology.grow_criteria import GROW
from recbole_dsl.topology.prune_criteria import PRUNE
from recbole_dsl.topology.schedule import SCHEDULES
from tests.toy import WIDTH, Toy, alive_positions, blocks_of, toy_batch, toy_loss

configs = st.builds(
    dict,
    density=st.sampled_from([0.05, 0.3, 0.62, 1.0]),
    # svd needs data
    sparse_init=st.sampled_from([name for name in INITIALISERS if name != "svd"]),
    budget=st.sampled_from([None, "erk", "global"]),
    keep_rows=st.booleans(),
    topology=st.sampled_from(TOPOLOGIES),
    update_interval=st.integers(1, 4),
    update_ratio=st.sampled_from([0.0, 0.3, 1.0]),
    schedule=st.sampled_from(list(SCHEDULES)),
    stop_fraction=st.sampled_from([0.0, 0.5, 1.0]),
    prune=st.sampled_from(list(PRUNE)),
    prune_threshold=st.sampled_from([0.0, 0.3, 10.0]),
    grow=st.sampled_from(list(GROW)),
    grow_window=st.sampled_from([None, 1, 3]),
    grow_memory=st.sampled_from([0.3, 1.0]),
    seed=st.integers(0, 3),
)


def start(config, total_steps=12, lr=0.01):
    torch.manual_seed(config.seed)
    model = Toy()
    report = sparsify(model, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    topology = DynamicTopology(report.weights, config, total_steps)
    topology.attach(optimizer)
    return model, report, optimizer, topology


def train_step(model, optimizer, batch):
    optimizer.zero_grad()
    toy_loss(model, batch).backward()
    optimizer.step()


@settings(max_examples=150)
@given(configs, st.sampled_from([16, 2**18]))
def test_invariants_hold_at_every_step(options, block):
    with blocks_of(block):
        check_invariants(DSLConfig(**options))


def check_invariants(config):
    model, report, optimizer, topology = start(config)
    generator = torch.Generator().manual_seed(0)
    padding = WIDTH
    room = sum(w.numel for w in report.weights.values()) - padding
    budget = report.numel if config.density == 1 else min(round(config.density * report.numel), room)
    ever_alive = {name: alive_positions(w) for name, w in report.weights.items()}
    for _ in range(12):
        before = {name: alive_positions(w) for name, w in report.weights.items()}
        updates = len(topology.updates)
        train_step(model, optimizer, toy_batch(generator))
        pruned = grown = 0
        for name, weight in report.weights.items():
            alive = alive_positions(weight)
            new = alive - before[name]
            pruned, grown = pruned + len(before[name] - alive), grown + len(new)
            ever_alive[name] |= alive
            fresh = [slot for slot, p in enumerate(weight.positions().tolist()) if p in new]
            state = optimizer.state[weight.values]
            for moment in (weight.values, state["exp_avg"], state["exp_avg_sq"]):
                assert moment.shape == (weight.nnz,)
                assert moment[fresh].eq(0).all(), "a grown weight is 0 and has no past"
            assert weight.nnz >= 1
            if config.keep_rows:
                assert {p // weight.n_columns for p in before[name]} <= {p // weight.n_columns for p in alive}
            assert weight.values.grad is None or weight.values.grad.shape == weight.values.shape
        assert report.nnz == budget, "the budget is exact at every step"
        assert config.density == 1 or model.item.weight[0].eq(0).all(), "the padding row is empty"
        if len(topology.updates) > updates:
            update = topology.updates[-1]
            # sets that met would leave fewer positions changed than were exchanged
            assert pruned == grown == update.exchanged
            assert update.density == {name: w.density for name, w in report.weights.items()}
        else:
            assert pruned == grown == 0
        explored = sum(map(len, ever_alive.values())) / report.numel
        assert topology.exploration_rate == pytest.approx(explored)
    wanted = [s for s in range(1, 13) if s % config.update_interval == 0 and s < config.stop_fraction * 12]
    assert [u.step for u in topology.updates] == (wanted if config.topology == "dynamic" else [])
    dense_bytes = sum(8 * w.numel + 8 * w.n_rows for w in report.weights.values())
    assert topology.growth_peak_bytes <= dense_bytes


@given(configs)
@settings(max_examples=20)
def test_same_seed_and_data_give_the_same_topology(options):
    config = DSLConfig(**options)
    runs = []
    for _ in range(2):
        model, report, optimizer, topology = start(config)
        generator = torch.Generator().manual_seed(1)
        for _ in range(8):
            train_step(model, optimizer, toy_batch(generator))
        runs.append(({n: w.positions().tolist() for n, w in report.weights.items()}, topology.updates))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("grow, budget", [("gradient", None), ("random_unfired", None), ("momentum", "global")])
def test_a_resumed_run_makes_the_same_updates(grow, budget):
    config = DSLConfig(density=0.3, update_interval=3, grow=grow, budget=budget)
    model, report, optimizer, topology = start(config)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        train_step(model, optimizer, toy_batch(generator))
    saved = {k: v.state_dict() for k, v in (("m", model), ("o", optimizer), ("t", topology))}
    saved = torch.load(_roundtrip(saved), weights_only=True)
    data = generator.get_state()
    other, other_report, other_optimizer, other_topology = start(DSLConfig(**{**config.to_dict(), "seed": 5}))
    other.load_state_dict(saved["m"])
    other_optimizer.load_state_dict(saved["o"])
    other_topology.load_state_dict(saved["t"])
    assert other_topology.exploration_rate == topology.exploration_rate
    for m, o in ((model, optimizer), (other, other_optimizer)):
        generator.set_state(data)
        for _ in range(6):
            train_step(m, o, toy_batch(generator))
    assert other_topology.updates == topology.updates
    for name, weight in report.weights.items():
        assert torch.equal(other_report.weights[name].dense(), weight.dense())


def _roundtrip(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("grow, decay", [("gradient", 1.0), ("momentum", 0.9)])
def test_the_window_adds_up_the_gradients_of_its_steps(grow, decay):
    config = DSLConfig(density=0.3, update_interval=6, grow=grow, grow_window=5)
    model, report, optimizer, topology = start(config, lr=0.0)
    generator = torch.Generator().manual_seed(1)
    batches = [toy_batch(generator) for _ in range(6)]
    dense = Toy()
    with torch.no_grad():
        for name, weight in report.weights.items():
            dict(dense.named_parameters())[name].copy_(weight.dense())
        dense.layer.bias.copy_(model.layer.bias)
    collected = 0
    for batch in batches[1:]:
        dense.zero_grad()
        toy_loss(dense, batch).backward()
        collected = decay * collected + dense.user.weight.grad
    weight = report.weights["user.weight"]
    before = alive_positions(weight)
    for batch in batches:
        train_step(model, optimizer, batch)
    grown = alive_positions(weight) - before
    scores = collected.view(-1).abs()
    scores[list(before)] = -1
    assert len(grown) == round(topology.updates[0].ratio * weight.nnz)
    assert grown == set(scores.topk(len(grown)).indices.tolist())


def test_gradients_are_collected_in_the_window_only():
    config = DSLConfig(density=0.3, update_interval=5, grow_window=2, stop_fraction=1)
    model, report, optimizer, topology = start(config)
    generator = torch.Generator().manual_seed(1)
    watched = []
    for _ in range(10):
        watched.append(report.weights["user.weight"].reader.gradient_sink is not None)
        train_step(model, optimizer, toy_batch(generator))
    assert watched == [False, False, False, True, True] * 2
    assert topology.growth_peak_bytes > 0
    assert all(weight.reader.gradient_sink is None for weight in report.weights.values())


@pytest.mark.parametrize(
    "rows, options, steps",
    [
        (100, {}, 200),
        (100, {"grow": "momentum"}, 50),
        (70_000, {}, 40),
        (70_000, {"update_interval": 4000}, 200),
        (70_000, {"update_interval": 4}, 1),
        (70_000, {"grow_window": 150}, 150),
    ],
)
def test_by_default_collecting_takes_a_share_of_the_interval_where_a_table_is_large(rows, options, steps):
    model = torch.nn.Embedding(rows, 64)
    config = DSLConfig(**{"update_interval": 400, "sparse_init": "uniform", **options})
    assert DynamicTopology(sparsify(model, config).weights, config, total_steps=9999).grow_window == steps


@pytest.mark.parametrize(("epochs", "interval"), [(None, 200), (4, 200), (64, 100), (10_000, 1)])
def test_by_default_an_interval_is_a_32nd_of_the_training_and_at_most_one_of_its_epochs(epochs, interval):
    *_, topology = start(DSLConfig(density=0.3, sparse_init="uniform"), total_steps=6400)
    topology.epochs = epochs
    assert topology.update_interval == interval


@pytest.mark.parametrize(
    ("options", "epochs", "wanted"),
    [({}, None, 0.1), ({}, 10, 0.5), ({"update_ratio": 0.3}, None, 0.3), ({"update_ratio": 0.0}, 10, 0.0)],
)
def test_by_default_the_first_update_exchanges_a_tenth_and_a_half_where_each_epoch_has_one(
    options, epochs, wanted
):
    model, _, optimizer, topology = start(
        DSLConfig(density=0.3, sparse_init="uniform", **options), total_steps=1000
    )
    topology.epochs = epochs
    random = torch.Generator().manual_seed(0)
    while not topology.updates:
        train_step(model, optimizer, toy_batch(random))
    # the schedule has begun to fall
    assert topology.updates[0].ratio == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_a_tensor_that_the_last_step_did_not_train_is_left_as_it_is(budget):
    model = torch.nn.ModuleList([torch.nn.Embedding(9, 8), torch.nn.Embedding(9, 8)])
    config = DSLConfig(density=0.4, update_interval=1, budget=budget)
    weights = sparsify(model, config).weights
    trained, idle = weights["0.weight"], weights["1.weight"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    topology = DynamicTopology(weights, config, total_steps=9)
    topology.attach(optimizer)
    before, values = alive_positions(idle), idle.values.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model[0](torch.arange(9)).pow(2).sum().backward()
        optimizer.step()
    assert alive_positions(idle) == before and torch.equal(idle.values, values)
    assert all(update.exchanged == round(update.ratio * trained.nnz) for update in topology.updates)


def test_total_steps_are_asked_for():
    model, _, optimizer, topology = start(DSLConfig(update_interval=1), total_steps=None)
    with pytest.raises(DSLError, match="total_steps"):
        train_step(model, optimizer, toy_batch(torch.Generator()))
    topology.total_steps = 10
    train_step(model, optimizer, toy_batch(torch.Generator()))
    assert topology.updates


def test_svd_without_data_is_refused_at_the_first_step():
    model, _, optimizer, _ = start(DSLConfig(sparse_init="svd"))
    with pytest.raises(DSLError, match=r"^sparse_init=svd: must be another in a training without DSLTrainer"):
        train_step(model, optimizer, toy_batch(torch.Generator().manual_seed(0)))
