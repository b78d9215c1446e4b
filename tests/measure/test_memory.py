"""What sparse training may take, in live tensors, in files, and at the peak of a process of its own."""

import sys

import pytest

from benchmarks import memory_probes
from benchmarks.peak import in_fresh_process

SIZES = {"embedding_size": 64, "train_batch_size": 2048, "density": 0.1}
ROWS = 400_000
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read from /proc")


@pytest.mark.parametrize("options", [{}, {"learner": "sparse_adam"}])
def test_what_training_keeps_is_an_eighth_of_dense(options):
    dense = memory_probes.live_bytes("stock", 50_000, SIZES)
    ours = memory_probes.live_bytes("ours", 50_000, {**SIZES, **options})
    assert ours["total"] <= 0.13 * dense["total"]
    assert ours["record of explored weights"] <= 2 * 2**17


def test_a_checkpoint_is_an_eighth_of_a_dense_one():
    dense, ours = (memory_probes.checkpoint_bytes(side, 50_000, SIZES) for side in ("stock", "ours"))
    assert ours["whole"] <= 0.13 * dense["whole"]
    assert ours["weights"] <= 0.15 * dense["weights"]


@on_linux
def test_building_a_model_takes_little_more_than_it_has():
    sizes = in_fresh_process(memory_probes.build_peak, 10 * ROWS, SIZES)
    assert sizes["peak"] <= 1.6 * sizes["model"] < 0.25 * sizes["dense"]


@on_linux
@pytest.mark.parametrize("window, cap", [(1, None), (30, None), (30, 0.15)])
def test_an_update_keeps_to_its_cap(window, cap):
    sizes = in_fresh_process(memory_probes.update_peak, 2 * ROWS, window, cap, SIZES)
    assert sizes["update"] <= (cap or 0.25) * 2 * ROWS * 64 * 4
