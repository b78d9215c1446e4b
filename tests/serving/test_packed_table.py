"""A table in few bits: what comes back, and what a file may not hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.bits import bits_for, pack, packed_bytes, unpack
from recbole_dsl.serving.csr import CSR, offsets_of
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.quantising import VALUES, decoded_scales, signed_levels

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 70), st.sampled_from([0, 0.05, 0.1, 0.4, 0.9, 1]))


def dense(seed, n_rows, n_columns, density):
    random = np.random.default_rng(seed)
    scales = 10.0 ** random.integers(-2, 3, n_columns)
    values = (random.normal(size=(n_rows, n_columns)) * scales).astype(np.float32)
    return values * (random.random(values.shape) < density)


def read(table, n_rows=None, description=None, **changed):
    artifact = Artifact("a.rdsl", {}, {**table.arrays("t"), **{f"t.{name}": a for name, a in changed.items()}})
    return PackedTable.read(artifact, "t", n_rows or table.n_rows, {**table.describe(), **(description or {})})


@given(st.integers(1, 20), st.data())
def test_packed_numbers_come_back_from_any_place(bits, data):
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack(np.array(numbers, np.uint32), bits)
    assert packed.dtype == np.uint8 and len(packed) == packed_bytes(len(numbers), bits)
    start = data.draw(st.integers(0, len(numbers)))
    stop = data.draw(st.integers(start, len(numbers)))
    assert unpack(packed, bits, start, stop).tolist() == numbers[start:stop]


@given(st.integers(0, 99), SHAPES, st.sampled_from(VALUES))
def test_a_table_that_is_written_and_read_is_the_same_to_the_bit(seed, shape, values):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), values)
    again = read(table)
    assert (again.rows(0, len(x)).dense() == table.rows(0, len(x)).dense()).all()


@given(st.integers(0, 99), SHAPES, st.sampled_from(["fp32", "fp16", "int8"]))
def test_what_is_in_few_bits_loses_nothing_by_being_written_so_again(seed, shape, values):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), values)
    twice = PackedTable.of(table.rows(0, len(x)), values)
    assert table.parts.keys() == twice.parts.keys()
    decoded, anew = (t.rows(0, len(x)).dense() for t in (table, twice))
    assert (decoded == anew).all()


@given(st.integers(0, 99), SHAPES)
def test_the_error_of_few_bits_is_within_its_bound(seed, shape):
    x = dense(seed, *shape)
    entries = CSR.of_nonzero(x)
    for values in ("fp32", "fp16", "int8"):
        table = PackedTable.of(entries, values)
        error = np.abs(table.rows(0, len(x)).dense() - x)
        if values == "fp32":
            bound = np.zeros_like(x)
        elif values == "fp16":
            bound = np.abs(x) * 2.0**-11 + 2.0**-25
        else:
            scales = table.parts["scales"]
            bound = np.maximum(scales / 2, np.abs(x) - 127 * scales)
        # the bound's own difference is rounded to float32
        assert (error <= bound * (1 + 1e-5) + 2.0**-22 * np.abs(x)).all()


@given(st.integers(0, 99), SHAPES)
def test_int4_takes_the_nearest_of_the_values_that_a_row_can_have(seed, shape):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), "int4")
    assume(table.values == "int4")
    values = signed_levels(table.parts["levels"])
    assert (np.diff(values) >= 0).all() and (values == -values[::-1]).all()
    of_row = decoded_scales(table.parts["scales"])[:, None] * table.parts["unit"] * values
    least = np.abs(x[:, :, None] - of_row[:, None]).min(2) * (x != 0)
    error = np.abs(table.rows(0, len(x)).dense() - x)
    assert (error <= least * (1 + 1e-5) + 2.0**-20 * np.abs(x)).all()


@pytest.mark.parametrize("least, share", [(0, 0.95), (0.3, 0.7)])
def test_int4_loses_less_than_even_steps_and_much_less_without_small_values(least, share):
    random = np.random.default_rng(0)
    x = random.normal(size=(3000, 64)).astype(np.float32)
    x *= 10.0 ** random.integers(-2, 3, (3000, 1)).astype(np.float32)
    x *= (np.abs(x) >= least * np.abs(x).max(1, keepdims=True)) * (random.random(x.shape) < 0.1)
    table = PackedTable.of(CSR.of_nonzero(x), "int4")
    step = np.abs(x).max(1, keepdims=True) / 7 + 1e-30
    norms = np.linalg.norm(x, axis=1) + 1e-30
    ours, even = (
        (np.linalg.norm(decoded - x, axis=1) / norms).mean()
        for decoded in (table.rows(0, len(x)).dense(), np.rint(x / step) * step)
    )
    assert ours < share * even


@given(st.integers(0, 99), SHAPES)
def test_int4_is_never_larger_than_int8(seed, shape):
    entries = CSR.of_nonzero(dense(seed, *shape))
    assert PackedTable.of(entries, "int4").nbytes <= PackedTable.of(entries, "int8").nbytes


def test_int4_of_nothing_and_of_zeros_is_zero():
    empty = CSR(np.zeros(4, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.float32), 5)
    assert not read(PackedTable.of(empty, "int4")).rows(0, 3).dense().any()
    assert not read(PackedTable.of(CSR.of_full(np.zeros((3, 5), np.float32)), "int4")).rows(0, 3).dense().any()


@given(st.integers(0, 99), SHAPES, st.sampled_from(VALUES), st.data())
def test_any_rows_are_those_of_the_whole(seed, shape, values, data):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), values)
    whole = table.rows(0, len(x)).dense()
    start = data.draw(st.integers(0, len(x)))
    stop = data.draw(st.integers(start, len(x)))
    assert (table.rows(start, stop).dense() == whole[start:stop]).all()
    ids = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), max_size=5)), np.int64)
    assert (table.dense_rows(ids) == whole[ids]).all()


def as_earlier(table):
    """``table`` with the index that earlier files have."""
    places = table.places()
    counts = places.lengths.astype(np.uint8 if table.n_columns < 256 else np.uint32)
    columns = pack(places.columns, bits_for(table.n_columns))
    parts = {name: part for name, part in table.parts.items() if name in ("codes", "levels", "scales", "unit")}
    return replace(table, index="columns", parts={**parts, "counts": counts, "columns": columns})


@given(st.integers(0, 99), SHAPES, st.sampled_from(VALUES))
def test_the_index_of_earlier_files_is_read(seed, shape, values):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), values)
    assume(table.index != "full")
    again = read(as_earlier(table))
    assert again.index == "columns" and (again.offsets == table.offsets).all()
    start = len(x) // 3
    assert (again.rows(start, len(x)).dense() == table.rows(start, len(x)).dense()).all()


@given(st.integers(0, 99), SHAPES, st.sampled_from(VALUES), st.booleans(), st.data())
def test_a_part_of_a_table_has_the_same_entries(seed, shape, values, is_earlier, data):
    x = dense(seed, *shape)
    table = PackedTable.of(CSR.of_nonzero(x), values)
    whole = table.rows(0, len(x)).dense()
    if is_earlier and table.index != "full":
        table = as_earlier(table)
    rows, columns = (np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for n in whole.shape)
    assume(rows.any() and columns.any() and table.index != "full")
    numbers = np.full(whole.shape, -1)
    places = table.places()
    numbers[places.row_of_entry(), places.columns] = places.values
    kept = numbers[rows][:, columns]
    is_there = kept >= 0
    left = CSR(offsets_of(is_there.sum(1)), np.nonzero(is_there)[1], kept[is_there], int(columns.sum()))
    part = read(table.only(left, rows, columns))
    assert (part.rows(0, part.n_rows).dense() == whole[rows][:, columns]).all()


@pytest.mark.parametrize(
    "density, values, most", [(0.1, "int8", 11), (0.1, "int4", 9), (0.01, "int8", 1.7), (0.01, "int4", 1.7)]
)
def test_a_row_of_64_takes_few_bytes(density, values, most):
    table = PackedTable.of(CSR.of_nonzero(dense(0, 2000, 64, density)), values)
    assert table.index == "lists" and table.nbytes <= most * 2000


def test_a_table_takes_no_index_when_it_is_full_and_a_bit_an_entry_when_it_is_half_full():
    assert PackedTable.of(CSR.of_nonzero(dense(0, 2000, 64, 0.4)), "int8").index == "bitmap"
    full = PackedTable.of(CSR.of_nonzero(dense(0, 2000, 64, 1)), "int8")
    assert full.index == "full" and full.nbytes == 2000 * 64 + 4 * 64


def test_a_table_with_a_value_too_large_for_half_precision_is_refused():
    with pytest.raises(DSLError, match="values=fp16: must be another, as the model has a value of 1e"):
        PackedTable.of(CSR.of_nonzero(np.full((2, 2), 1e6, np.float32)), "fp16")
    with pytest.raises(DSLError, match="too large or no numbers"):
        PackedTable.of(CSR.of_nonzero(np.full((2, 2), np.inf, np.float32)), "int8")


TABLE = PackedTable.of(CSR.of_nonzero(dense(0, 99, 40, 0.1)), "int8")
EARLIER = as_earlier(TABLE)
LONGER = PackedTable.of(CSR.of_nonzero(dense(0, 128, 40, 0.1)), "int8")
WRONG = {
    "more entries than there are": {"counts": TABLE.parts["counts"] + np.uint8(1)},
    "entries of more rows": LONGER.parts,
    "another number of lists": {"counts": np.repeat(TABLE.parts["counts"], 2)},
    "a list cut off": {"low": TABLE.parts["low"][:-1]},
    "an entry twice": {"low": np.zeros_like(TABLE.parts["low"])},
    "codes cut off": {"codes": TABLE.parts["codes"][1:]},
    "scales of another number": {"scales": TABLE.parts["scales"][1:]},
    "a scale that is no number": {"scales": np.full(40, np.nan, np.float32)},
    "a scale below 0": {"scales": np.full(40, -1, np.float32)},
    "a scale whose products are not finite": {"scales": np.full(40, 3e38, np.float32)},
}


WRONG_EARLIER = {
    "too many entries a row": {"counts": np.full(99, 41, np.uint8)},
    "counts of other columns": {"counts": EARLIER.parts["counts"] + np.uint8(1)},
    "counts of another type": {"counts": EARLIER.parts["counts"].astype(np.uint16)},
    "columns cut off": {"columns": EARLIER.parts["columns"][:-1]},
    "columns out of range": {"columns": np.full_like(EARLIER.parts["columns"], 255)},
    "columns that do not ascend": {"columns": np.zeros_like(EARLIER.parts["columns"])},
}


@pytest.mark.parametrize("changed", WRONG_EARLIER.values(), ids=WRONG_EARLIER.keys())
def test_arrays_that_are_no_table_of_an_earlier_file_are_refused_in_one_line(changed):
    with pytest.raises(DSLError, match=r"artifact=a.rdsl: t\.\w+ .*must") as refused:
        read(EARLIER, **changed)
    assert "\n" not in str(refused.value)


WRONG_LEVELS = {
    "levels of another number": {"levels": np.ones(7, np.float32)},
    "levels of another type": {"levels": np.ones(8, np.uint8)},
    "a level that is no number": {"levels": np.full(8, np.nan, np.float32)},
    "a level below 0": {"levels": np.full(8, -1, np.float32)},
    "a level whose products are not finite": {"levels": np.full(8, 3e38, np.float32)},
    "scales of another number": {"scales": np.ones(98, np.uint8)},
    "a unit that is no number": {"unit": np.full(1, np.inf, np.float32)},
}


@pytest.mark.parametrize("changed", WRONG_LEVELS.values(), ids=WRONG_LEVELS.keys())
def test_arrays_that_are_no_table_of_int4_are_refused_in_one_line(changed):
    with pytest.raises(DSLError, match=r"artifact=a.rdsl: t\.\w+ .*must") as refused:
        read(PackedTable.of(TABLE.all_rows(), "int4"), **changed)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG.keys())
def test_arrays_that_are_no_table_are_refused_in_one_line(changed):
    with pytest.raises(DSLError, match=r"artifact=a.rdsl: t\.\w+ .*must") as refused:
        read(TABLE, **changed)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "description",
    [{"n_columns": n} for n in (0, -1, 41, True, 1.5, "20", None, 2**40)]
    + [{"values": values} for values in ("fp64", None, 8, [], {})]
    + [{"index": index} for index in ("rows", None, "full", "bitmap", [])],
)  # fmt: skip
def test_descriptions_of_another_table_are_refused_in_one_line(description):
    with pytest.raises(DSLError, match=r"artifact=a\.rdsl: "):
        read(TABLE, description=description)


def test_bits_beyond_the_last_column_are_refused():
    table = PackedTable.of(CSR.of_nonzero(dense(0, 9, 20, 0.5)), "fp32")
    assert table.index == "bitmap"
    with pytest.raises(DSLError, match="no bits beyond column 19"):
        read(table, bitmap=np.full_like(table.parts["bitmap"], 255))


def test_there_are_enough_bits_for_every_column():
    assert [bits_for(n) for n in (1, 2, 3, 4, 64, 65, 256, 257)] == [1, 1, 2, 2, 6, 7, 8, 9]
