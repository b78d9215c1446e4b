"""Histories that are read without their padding: the same vectors, losses and gradients."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import init_seed
from torch import nn

from benchmarks.model_cases import CASES
from recbole_dsl import DSLTrainer
from recbole_dsl.sparse.modules import stored_parameters
from recbole_dsl.training import padding
from recbole_dsl.training.padding import without_padding
from tests.running import prepare
from tests.training.test_models import options_of

SASREC = {"n_layers": 1, "n_heads": 1, "hidden_size": 8, "load_col": None, "train_neg_sample_args": None}
# the cases in which what a model makes of a history does not depend on its padding
DIVIDED = set("TransRec GRU4RecKG GRU4Rec NARM STAMP SASRec SRGNN GCSAN GRU4RecF SASRecF FDSA CORE-trm".split())
WHOLE = {case for case in CASES["sequential"] if "-" not in case} - DIVIDED
LENGTHS = [1, 10, 3, 3, 2, 7, 1, 5, 10, 4, 1, 2]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Divide batches that are far too small for that."""
    monkeypatch.setattr(padding, "_SPARE", 4)
    monkeypatch.setattr(padding, "_POSITIONS", 16)


@pytest.fixture
def widths(monkeypatch):
    """Record, for a class, how wide the histories are that its ``forward`` reads."""

    def record(kind):
        usual, seen = kind.forward, []

        def forward(self, *args, **kwargs):
            seen.extend(value.shape[1] for value in (*args, *kwargs.values()) if getattr(value, "ndim", 0) == 2)
            return usual(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", forward)
        return seen

    return record


def loss_and_gradients(model, batch):
    model.zero_grad()
    # some models draw negative items
    init_seed(3, True)
    loss = model.calculate_loss(batch)
    loss = sum(loss) if isinstance(loss, tuple) else loss
    loss.backward()
    return loss.detach(), [p.grad for p in stored_parameters(list(model.parameters())) if p.grad is not None]


@pytest.mark.parametrize("case", sorted(DIVIDED | WHOLE))
def test_loss_and_gradients_of_each_model_stay_the_same(case, data_path, widths):
    options = {**options_of("sequential", case, data_path), "MAX_ITEM_LIST_LENGTH": 10, "density": 0.3}
    config, model, train_data, *_ = prepare(options.pop("model"), options)
    DSLTrainer(config, model)
    # without dropout, whose random numbers are others
    model.eval()
    batch = next(iter(train_data))
    expected = loss_and_gradients(model, batch)
    seen = widths(type(model))
    with without_padding(model):
        loss_and_gradients(model, batch)
        seen.clear()
        found = loss_and_gradients(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (case in DIVIDED) == (min(seen) < 10)
    assert "forward" not in vars(model)


class Own(SequentialRecommender):
    """A user's own model: the mean of the items of a history."""

    def __init__(self):
        nn.Module.__init__(self)
        self.items = nn.Embedding(60, 4, padding_idx=0)

    def forward(self, item_seq, item_seq_len):
        return self.items(item_seq).sum(1) / item_seq_len[:, None]


class OfPadded(Own):
    def forward(self, item_seq, item_seq_len):
        return self.items(item_seq).mean(1)


class OfBatch(Own):
    def forward(self, item_seq, item_seq_len):
        vectors = super().forward(item_seq, item_seq_len)
        return vectors - vectors.mean(0)


class OfFixedLength(Own):
    def forward(self, item_seq, item_seq_len):
        return self.items(item_seq).reshape(len(item_seq), 40)


class Keeping(Own):
    def forward(self, item_seq, item_seq_len):
        if self.training:
            self.lengths = item_seq_len.clone()
        return super().forward(item_seq, item_seq_len)


class Hooked(Own):
    def __init__(self):
        super().__init__()
        self.items.register_forward_hook(lambda module, args, result: None)


class Normalised(Own):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)


class Failing(Own):
    def forward(self, item_seq, item_seq_len):
        if item_seq.shape[1] < 10:
            raise ZeroDivisionError
        return super().forward(item_seq, item_seq_len)


class OfTwo(Own):
    def forward(self, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len), item_seq_len


def histories(from_the_left=False):
    item_seq = torch.zeros(len(LENGTHS), 10, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        places = slice(10 - length, None) if from_the_left else slice(length)
        item_seq[row, places] = torch.arange(1, length + 1) + 4 * row
    return item_seq, torch.tensor(LENGTHS)


def test_a_users_own_model_reads_no_padding(widths):
    model, seen = Own(), widths(Own)
    expected = model(*histories())
    with without_padding(model):
        model(*histories())
        seen.clear()
        torch.testing.assert_close(model(*histories()), expected)
        torch.testing.assert_close(model(item_seq_len=histories()[1], item_seq=histories()[0]), expected)
    assert min(seen) == 1 and model.training


@pytest.mark.parametrize("kind", [OfPadded, OfBatch, OfFixedLength, Keeping, Hooked, Normalised, Failing, OfTwo])
def test_a_model_that_does_something_else_with_padding_reads_whole_histories(kind, widths):
    model, seen = kind(), widths(kind)
    expected = model(*histories())
    with without_padding(model):
        model(*histories())
        seen.clear()
        torch.testing.assert_close(model(*histories()), expected, rtol=0, atol=0)
    assert set(seen) == {10}


def test_histories_of_one_length_show_nothing_of_padding():
    model, item_seq = OfPadded(), torch.arange(1, 41).view(4, 10)
    expected = model(*histories())
    with without_padding(model):
        model(item_seq, torch.full((4,), 10))
        torch.testing.assert_close(model(*histories()), expected, rtol=0, atol=0)


def test_histories_that_are_padded_in_front_stay_as_wide(widths):
    model, seen = Own(), widths(Own)
    expected = model(*histories(from_the_left=True))
    with without_padding(model):
        torch.testing.assert_close(model(*histories(from_the_left=True)), expected)
    assert set(seen) == {10}


def test_the_comparison_draws_no_random_numbers(options):
    model = prepare("SASRec", {**options, **SASREC})[1]
    with without_padding(model):
        before = torch.get_rng_state()
        model.eval()
        model.forward(*histories())
    assert torch.equal(before, torch.get_rng_state())


def test_a_copy_that_a_model_makes_of_itself_has_weights_of_its_own():
    model = Own()
    with without_padding(model):
        teacher = copy.deepcopy(model)
        nn.init.zeros_(teacher.items.weight)
        assert teacher(*histories()).abs().max() == 0 < model(*histories()).abs().max()


@pytest.mark.parametrize(
    "changes, is_trimmed", [({}, True), ({"trim_padding": False}, False), ({"density": 1.0}, False)]
)
def test_training_and_evaluation_leave_padding_out(options, changes, is_trimmed, widths):
    divided = {"eval_args": {"split": {"RS": [0.4, 0.3, 0.3]}, "order": "TO", "group_by": "user", "mode": "full"}}
    config, model, train_data, _, test_data = prepare(
        "SASRec", {**options, **SASREC, **divided, "MAX_ITEM_LIST_LENGTH": 20, "epochs": 1, **changes}
    )
    trainer, seen = DSLTrainer(config, model), widths(type(model))
    trainer.fit(train_data, saved=False)
    assert is_trimmed == (max(seen) > min(seen))
    seen.clear()
    trainer.evaluate(test_data, load_best_model=False)
    assert is_trimmed == (min(seen) < 20)
    assert "forward" not in vars(model)


@given(st.lists(st.integers(1, 12), min_size=1), st.integers(0, 20))
def test_each_history_is_in_one_block_that_is_wide_enough(lengths, spare):
    lengths = torch.tensor(lengths)
    blocks = padding._blocks(lengths, spare)
    assert torch.cat([rows for rows, _ in blocks]).sort().values.tolist() == list(range(len(lengths)))
    for rows, width in blocks:
        room = width - lengths[rows]
        assert len(rows) and room.min() >= 0 and room.sum() <= spare
        assert (len(rows) - 1) * width < 16
