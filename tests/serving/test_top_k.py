"""Exact top k: whatever finds it, it is that of brute force, to the bit."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving import inverted_index, top_k, top_k_numpy
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.top_k import ExactTopK

needs_numba = pytest.mark.skipif(top_k._compiled() is None, reason="Numba is not there")
COMPILED = ["index", "blocks", "products"]
WAYS = ["plain", *(pytest.param(way, marks=needs_numba) for way in COMPILED)]


@pytest.fixture
def force(monkeypatch):
    """Let searches go one way, whatever the work."""
    search = ExactTopK.search

    def prepared(self, *arguments, **options):
        self.prepare()
        return search(self, *arguments, **options)

    def choose(way):
        monkeypatch.setattr(ExactTopK, "search", search if way == "plain" else prepared)
        monkeypatch.setattr(top_k, "_FEW", -1)
        monkeypatch.setattr(top_k, "_TRIED", 1)
        monkeypatch.setattr(top_k, "_fastest", lambda *_: way)

    return choose


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tables of the size of tests have several blocks too."""
    monkeypatch.setattr(top_k, "_BATCH", 3)
    monkeypatch.setattr(top_k, "_ITEMS", 7)
    monkeypatch.setattr(top_k, "build_index", lambda table: inverted_index.build_index(table, 8))
    monkeypatch.setattr(inverted_index, "_BLOCKS", 2)
    monkeypatch.setattr(inverted_index, "_ROWS", 5)
    monkeypatch.setattr(top_k_numpy, "_ITEMS", 11)


def brute_force(table, queries, k, allowed, factors=None):
    """Of a dense table and an allowed (n, n_items) bool: one product after the other, and Python's sort."""
    factors = np.ones(len(table)) if factors is None else factors.astype(np.float64)
    ids = np.full((len(queries), k), -1)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for row, query in enumerate(queries.astype(np.float64)):
        found = []
        for item in np.flatnonzero(allowed[row]):
            total = 0.0
            for column in range(table.shape[1]):
                total += float(query[column]) * float(table[item, column])
            found.append((-np.float32(total * factors[item]), item))
        for place, (score, item) in enumerate(sorted(found)[:k]):
            ids[row, place], scores[row, place] = item, -score
    return ids, scores


def sparse_normal(random, rows):
    """(rows, 64) of density 0.1."""
    return np.where(random.random((rows, 64)) < 0.1, random.standard_normal((rows, 64)), 0).astype(np.float32)


def search_of(table, as_dense=False):
    if as_dense:
        return ExactTopK.of_dense(table)
    matrix = sp.csr_matrix(table)
    return ExactTopK(matrix.data, matrix.indices.astype(np.uint8), matrix.indptr, table.shape[1])


@st.composite
def cases(draw):
    """(table, queries, k, allowed): values of a small grid, so that there are ties, or any."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_items, n_columns, n = draw(st.integers(0, 40)), draw(st.integers(1, 9)), draw(st.integers(0, 7))
    on_grid, scale = draw(st.booleans()), draw(st.sampled_from([1.0, 1e-18, 1e-30, 1e15]))

    def matrix(rows, density):
        shape = rows, n_columns
        values = random.integers(-2, 3, shape) if on_grid else random.standard_normal(shape)
        # whole rows may be empty
        alive = random.random(shape) < density * random.integers(0, 2, (rows, 1)) + density / 4
        return np.where(alive, values * scale, 0).astype(np.float32)

    table = matrix(n_items, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))
    queries = matrix(n, draw(st.sampled_from([0.0, 0.2, 1.0])))
    allowed = random.random((n, n_items)) < draw(st.sampled_from([0.05, 0.7, 1.0]))
    return table, queries, draw(st.integers(1, 50)), allowed


def assert_same(found, expected):
    (ids, scores), (expected_ids, expected_scores) = found, expected
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores.view(np.int32), (expected_scores + 0).view(np.int32))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_dense", [False, True], ids=["sparse", "dense"])
def test_it_is_brute_force(force, way, as_dense):
    force(way)

    @settings(deadline=None, max_examples=60)
    @given(cases(), st.booleans(), st.sampled_from([1, 3]))
    def check(case, sparse_queries, threads):
        table, queries, k, allowed = case
        given_queries = sp.csr_matrix(queries) if sparse_queries else queries
        exclude = sp.csr_matrix(~allowed)
        found = search_of(table, as_dense).search(given_queries, k, exclude, threads=threads)
        assert_same(found, brute_force(table, queries, k, allowed))

    check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_dense", [False, True], ids=["sparse", "dense"])
def test_a_scaled_table_is_that_of_the_scaled_vectors(force, way, as_dense):
    force(way)

    @settings(deadline=None, max_examples=40)
    @given(cases(), st.integers(0, 2**32), st.sampled_from([1e-6, 1.0, 1e6]))
    def check(case, seed, scale):
        table, queries, k, allowed = case
        factors = (np.random.default_rng(seed).random(len(table)) * scale).astype(np.float32)
        search = search_of(table, as_dense)
        scaled = search.scaled(factors)
        expected = brute_force(table, queries, k, allowed, factors)
        assert_same(scaled.search(queries, k, sp.csr_matrix(~allowed)), expected)
        assert_same(search.search(queries, k), brute_force(table, queries, k, np.ones_like(allowed)))

    check()


@pytest.mark.parametrize("few", [-1, 2], ids=["by a mask", "by themselves"])
@pytest.mark.parametrize("way", WAYS)
def test_only_candidates_are_found(force, monkeypatch, way, few):
    force(way)
    monkeypatch.setattr(top_k, "_FEW", few)

    @settings(deadline=None, max_examples=40)
    @given(cases(), st.data())
    def check(case, data):
        table, queries, k, allowed = case
        chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))), bool)
        expected = brute_force(table, queries, k, allowed & chosen)
        search = search_of(table)
        lists = CSR.of_lists([np.flatnonzero(~row) for row in allowed])
        assert_same(search.search(queries, k, lists, chosen), expected)
        assert_same(search.search(queries, k, sp.csr_matrix(~allowed), np.flatnonzero(chosen)), expected)

    check()


@pytest.mark.parametrize("way", WAYS)
def test_near_ties_are_told_apart_as_by_exact_sums(force, way):
    # sums in float32 lose what tells these items apart
    force(way)
    random = np.random.default_rng(0)
    base = random.standard_normal(16).astype(np.float32)
    table = np.stack([base] * 300)
    table[np.arange(300), random.integers(0, 16, 300)] *= np.float32(1 + 2.0**-23)
    queries = random.standard_normal((5, 16)).astype(np.float32)
    allowed = np.ones((5, 300), bool)
    assert_same(search_of(table).search(queries, 20), brute_force(table, queries, 20, allowed))


@needs_numba
def test_a_large_table_is_searched_alike_every_way(force, monkeypatch):
    monkeypatch.undo()
    random = np.random.default_rng(1)
    # norms of all sizes, as trained ones are
    items = sparse_normal(random, 9000) * random.pareto(1.5, (9000, 1)).astype(np.float32)
    queries = sp.csr_matrix(sparse_normal(random, 300))
    seen = sp.csr_matrix(random.random((300, 9000)) < 0.01)
    found = {}
    for way in ("plain", *COMPILED):
        force(way)
        search = search_of(items)
        found[way] = search.search(queries, 10, seen)
        assert_same(search.search(queries, 10, seen, threads=4), found[way])
    for way in COMPILED:
        assert_same(found[way], found["plain"])
    rough = queries @ items.T
    rough[seen.nonzero()] = -np.inf
    np.testing.assert_allclose(found["plain"][1], -np.sort(-rough, axis=1)[:, :10], rtol=1e-5, atol=1e-5)


def test_no_search_waits_for_what_prepare_makes(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(top_k, "_compiled", lambda: pytest.fail("in a search"))
    monkeypatch.setattr(top_k, "build_index", lambda table: pytest.fail("in a search"))
    random = np.random.default_rng(0)
    search = search_of(sparse_normal(random, 8192))
    queries = sparse_normal(random, 256)
    # more scores than compiling would pay for
    for _ in range(20):
        search.search(queries, 3)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@needs_numba
@pytest.mark.parametrize(
    "keep", [np.copy, read_only, lambda array: np.repeat(array, 2, 0)[::2]], ids=["own", "read-only", "strided"]
)
def test_nothing_is_compiled_after_prepare(monkeypatch, keep):
    """Whatever the arguments are, the types that the loops are called with are those of `prepare`."""
    random = np.random.default_rng(0)
    table = sp.csr_matrix(sparse_normal(random, 50))
    parts = keep(table.data), keep(table.indices.astype(np.uint8)), keep(table.indptr)
    search = ExactTopK(*parts, 64)
    factors = keep(random.random(50).astype(np.float32))
    searches = [search, search.scaled(factors), ExactTopK.of_dense(table.toarray())]
    for one in searches:
        one.prepare()
    compiled = {name: f.signatures for name, f in vars(top_k._compiled()).items() if hasattr(f, "signatures")}
    queries = sparse_normal(random, 12)
    monkeypatch.setattr(top_k, "_FEW", -1)
    for one in searches:
        for way in COMPILED:
            monkeypatch.setattr(top_k, "_fastest", lambda *_, way=way: way)
            for of_query in (queries, keep(queries), queries[:1], sp.csr_matrix(queries), queries[:, ::-1]):
                exclude = sp.random(of_query.shape[0], 50, 0.2, "csr", rng=random)
                exclude.sort_indices()
                for left_out in (None, exclude, (keep(exclude.indptr), keep(exclude.indices))):
                    for candidates in (None, [1, 2, 3], keep(np.arange(50) > 9)):
                        one.search(of_query, 3, left_out, candidates, threads=2)
    assert compiled == {name: getattr(top_k._compiled(), name).signatures for name in compiled}


@needs_numba
def test_preparing_again_or_from_several_threads_makes_everything_once(monkeypatch):
    made = []
    build = top_k.build_index
    monkeypatch.setattr(top_k, "build_index", lambda table: made.append(table.n_rows) or build(table))
    search = search_of(np.eye(64, dtype=np.float32))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: search.prepare(), range(8)))
    search.scaled(np.ones(64, np.float32)).prepare()
    assert made.count(64) == 1
    other = search_of(np.eye(64, dtype=np.float32))
    scaled = other.scaled(np.ones(64, np.float32))
    scaled.prepare()
    other.prepare()
    assert other._index is scaled._index


def test_it_works_without_numba_and_imports_neither_torch_nor_recbole():
    code = """
import sys
sys.modules.update(numba=None, torch=None, recbole=None, ray=None)
import numpy as np
from recbole_dsl.serving.top_k import ExactTopK
search = ExactTopK.of_dense(np.eye(4, dtype=np.float32))
search.prepare()
print(search.search(np.eye(4, dtype=np.float32)[:1], 2)[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[[0, 1]]", 0), done.stderr


FINE = {
    "values": np.ones(2, np.float32),
    "columns": np.array([0, 1]),
    "row_offsets": np.array([0, 2]),
    "n_columns": 2,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": np.ones(2)},
        {"values": np.ones((1, 2), np.float32)},
        {"values": np.array([1, np.nan], np.float32)},
        {"values": np.array([1, np.inf], np.float32)},
        {"columns": np.array([0, 2])},
        {"columns": np.array([-1, 1])},
        {"columns": np.array([1, 0])},
        {"columns": np.array([1, 1])},
        {"columns": np.array([0])},
        {"columns": np.array([0.0, 1.0])},
        {"row_offsets": np.array([0, 3])},
        {"row_offsets": np.array([1, 2])},
        {"row_offsets": np.array([0, 2, 1, 2])},
        {"row_offsets": np.array([], np.int64)},
        {"row_offsets": np.array([0.0, 2.0])},
    ],
    ids=str,
)
def test_arrays_that_are_no_table_are_refused(wrong):
    with pytest.raises(DSLError, match=f"^{next(iter(wrong))}"):
        ExactTopK(**{**FINE, **wrong})


def test_a_dense_table_that_is_none_is_refused():
    for table in (np.ones(3, np.float32), np.ones((2, 2)), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(DSLError, match=r"^table"):
            ExactTopK.of_dense(table)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("k", 0),
        ("k", 2.0),
        ("k", True),
        ("threads", 0),
        ("queries", np.ones((1, 3), np.float32)),
        ("queries", np.ones(2, np.float32)),
        ("queries", np.ones((1, 2))),
        ("queries", [[1.0, 2.0]]),
        ("queries", np.full((1, 2), np.nan, np.float32)),
        ("queries", np.full((1, 2), 3e38, np.float32)),
        ("exclude", sp.csr_matrix((2, 1))),
        ("exclude", ([0, 1], [1])),
        ("exclude", ([0, 1], [-1])),
        ("exclude", ([0, 2], [0])),
        ("candidates", [1]),
        ("candidates", [-1]),
        ("candidates", [0.0]),
        ("candidates", np.ones(2, bool)),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(name, wrong):
    fine = {"queries": np.ones((1, 2), np.float32), "k": 1}
    with pytest.raises(DSLError, match=f"^{name}") as refused:
        ExactTopK(**FINE).search(**{**fine, name: wrong})
    assert "\n" not in str(refused.value)


def test_excluded_ids_that_do_not_ascend_are_refused():
    search = search_of(np.eye(3, dtype=np.float32))
    with pytest.raises(DSLError, match=r"^exclude: ids must ascend"):
        search.search(np.ones((1, 3), np.float32), 1, ([0, 2], [2, 0]))
    # from one query to the next they may fall
    ids, _ = search.search(np.ones((2, 3), np.float32), 2, ([0, 1, 2], [2, 0]))
    assert ids.tolist() == [[0, 1], [1, 2]]
