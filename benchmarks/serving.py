"""Serving: exact top k against dense products, implicit and faiss, a fresh process, requests, and all of ml-1m.

    python -m benchmarks.serving --threads 1
    python -m benchmarks.serving --threads 1 --rows many --tables power-law

Needs the extras `serve` and `benchmarks`. The first call trains the tables, which takes minutes, and keeps them
under --data_path.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits

from benchmarks import serving_fresh, serving_requests
from benchmarks.alternate import Times, alternate, time_cells
from benchmarks.report import parse, print_header, print_table
from benchmarks.serving_tables import drawn_with_noise, ml_1m_tables, power_law_tables
from benchmarks.sides import load, make_config, make_trainer
from recbole_dsl.serving import Recommender
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.top_k import ExactTopK

ROWS = ("one", "many", "fresh", "requests", "reload", "all")
TABLES = ("power-law", "ml-1m drawn")
_OURS, _DENSE = "ours", "dense product and topk, PyTorch"
# RecBole's default size of an evaluation's batch, a user at a time, and one that it is fastest with
_EVALUATION_BATCHES = 4096, 409_600
# dense scores of as many users at once as PyTorch is fastest with
_DENSE_BATCH = 32

Search = Callable[[np.ndarray | sp.csr_matrix, int], np.ndarray]


@dataclass(frozen=True)
class Searched:
    """A table of items, and the vectors of users who ask."""

    name: str
    items: sp.csr_matrix
    users: sp.csr_matrix


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each of ``--rows``."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=ROWS, help="users one at a time, or many at once"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000_000, help="of the generated data")
    parser.add_argument("--interactions", type=int, default=10_000_000, help="of the generated data")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 20), help="on the generated data, and on ml-1m")
    parser.add_argument("--at_once", type=int, default=256)
    parser.add_argument("--one_by_one", type=int, default=32, help="users of a round, one at a time")
    parser.add_argument("--requests", type=int, default=1000, help="of each kind")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parse(parser, arguments)
    with threadpool_limits(torch.get_num_threads()):
        searched = (
            [_searched(options, name) for name in options.tables] if {"one", "many"} & {*options.rows} else []
        )
        for row in options.rows:
            _PRINTERS[row](options, searched)


def _searched(options: argparse.Namespace, name: str) -> Searched:
    if name == "power-law":
        users, items = _power_law_tables(options)
    else:
        users, items = ml_1m_tables(options.data_path, options.epochs[1])
        items = drawn_with_noise(items, options.items)
    # a user without a weight scores 0 everywhere, which is no search
    return Searched(name, items, users[_some_alive(users, options.at_once)])


def _power_law_tables(options: argparse.Namespace) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    sizes = options.users, options.items, options.interactions
    return power_law_tables(options.data_path, *sizes, options.epochs[0])


def _some_alive(users: sp.csr_matrix, n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.flatnonzero(np.diff(users.indptr)), n)


def _print_one(options: argparse.Namespace, searched: Sequence[Searched]) -> None:
    print_header(f"The best {options.k} items for one user at a time", options, _what(options, searched))
    rows = []
    for table in searched:
        users = table.users[: options.one_by_one]
        makers = {_DENSE: _dense, _OURS: _ours}
        rows += _measured(options, table, makers, [users[i : i + 1] for i in range(users.shape[0])])
    print_table(_HEAD, rows)


def _print_many(options: argparse.Namespace, searched: Sequence[Searched]) -> None:
    print_header(
        f"The best {options.k} items for {options.at_once} users at once", options, _what(options, searched)
    )
    makers = {_DENSE: _dense, "implicit": _implicit, "faiss, IndexFlatIP": _faiss, _OURS: _ours}
    print_table(_HEAD, [row for t in searched for row in _measured(options, t, makers, [t.users])])


def _print_fresh(options: argparse.Namespace, _: Sequence[Searched]) -> None:
    users, items = (table[1:] for table in _power_law_tables(options))
    user = int(_some_alive(users, 1)[0])
    answers: dict[str, list[serving_fresh.Answer]] = {side: [] for side in serving_fresh.SIDES}

    def ask(side: str) -> float:
        answers[side].append(serving_fresh.ask(side, Path(folder), user, options.k))
        return answers[side][-1].seconds

    with tempfile.TemporaryDirectory() as folder:
        serving_fresh.write_files(Path(folder), users, items)
        sizes = {side: (Path(folder) / file).stat().st_size for side, (_, file) in serving_fresh.SIDES.items()}
        times = alternate({side: partial(ask, side) for side in serving_fresh.SIDES}, options.rounds)
    dense = next(iter(serving_fresh.SIDES))
    if answers["ours, fp32"][0].items != answers[dense][0].items:
        raise RuntimeError("the sides do not recommend the same items")
    peaks = {side: median(answer.peak for answer in some) for side, some in answers.items()}
    print_header(
        f"A fresh process to the first {options.k} recommendations",
        options,
        f"{users.shape[0]:,} users and {items.shape[0]:,} items, the power-law tables, D = 64, density 0.1; from "
        "the start of Python to its end, the file in the system's cache. Ours goes from tokens to tokens and has "
        f"loaded neither PyTorch nor RecBole. No seen items. Runs are interleaved, {options.rounds} rounds.",
    )
    rows = []
    for side in times:
        taken = [f"{peaks[side] / 1e6:.0f}", f"{peaks[side] / peaks[dense]:.2f}", f"{sizes[side] / 1e6:.1f}"]
        rows.append([side, *_cells(times[side], times["ours, fp32"], 1.0), *taken])
    print_table(
        ["side", "median s", "min - max", "this / ours, fp32", "peak memory, MB", "of dense", "file, MB"], rows
    )


def _print_requests(options: argparse.Namespace, _: Sequence[Searched]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = serving_requests.first_requests(_int8_file(options, folder), options.k, options.requests)
    start, loaded, prepared, asked, second, peak = (f"{size:.0f}" for size in found["memory"])
    print_header(
        f"The first {options.requests:,} requests of a process",
        options,
        f"{_what_serves(options)} Loaded in {found['loading']:.1f} s, prepared in {found['preparing']:.1f} s. "
        f"Resident memory: {start} MB with NumPy imported, {loaded} loaded, {prepared} prepared, {asked} after "
        f"the requests, {second} with a second one loaded and prepared, at most {peak}.",
    )
    rows = [[kind, *serving_requests.spread(found["seconds"][kind])] for kind in serving_requests.KINDS]
    print_table(["requests for", "median ms", "99 %", "slowest", "by the median"], rows)


def _print_reload(options: argparse.Namespace, _: Sequence[Searched]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = serving_requests.reloads(_int8_file(options, folder), options.k, options.rounds)
    print_header(
        "A reload under eight clients",
        options,
        f"{_what_serves(options)} Threads of one process ask for users, histories and similar items without a "
        f"pause, before and during {options.rounds} reloads, of {median(found['reloads']):.1f} s each; "
        f"{found['wrong']} answers were wrong. {found['memory']:.0f} MB in the end.",
    )
    rows = [
        [when, f"{len(found[when]):,}", *serving_requests.spread(found[when])] for when in ("before", "during")
    ]
    print_table(["when", "requests", "median ms", "99 %", "slowest", "by the median"], rows)


def _what_serves(options: argparse.Namespace) -> str:
    return (
        f"{options.users:,} users and {options.items:,} items, the power-law tables, D = 64, density 0.1, int8. "
        "Each request is for one user, drawn at random, a history of 1 to 20 items, or an item."
    )


def _int8_file(options: argparse.Namespace, folder: str) -> Path:
    users, items = (table[1:] for table in _power_law_tables(options))
    path = Path(folder) / "int8.rdsl"
    serving_fresh.write_tables(path, users, items, "int8")
    return path


def _print_all(options: argparse.Namespace, _: Sequence[Searched]) -> None:
    users, items = (table[1:] for table in ml_1m_tables(options.data_path, options.epochs[1]))
    evaluations = {}
    for size in _EVALUATION_BATCHES:
        config = make_config("BPR", "ml-1m", {"data_path": options.data_path, "eval_batch_size": size})
        train_data, valid_data, _ = load(config)
        evaluations[f"RecBole, eval_batch_size={size:,}"] = partial(_evaluation(config, train_data), valid_data)
    seen = train_data._dataset.inter_matrix("csr")[1:, 1:]
    seen.sort_indices()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ml-1m.rdsl"
        serving_fresh.write_tables(path, users, items, "fp32", CSR(*map(np.int64, (seen.indptr, seen.indices))))
        recommender = Recommender.load(path)
        tokens = recommender.users.all.tolist()
        recommender.prepare()
        sides = {
            **evaluations,
            "ours, in a process of its own": lambda: serving_fresh.ask_for_all(path, options.k),
            _OURS: lambda: _seconds_of(lambda: recommender.recommend(tokens, k=options.k)),
        }
        times = alternate(sides, options.rounds)
    print_header(
        f"The best {options.k} items for all users of ml-1m",
        options,
        f"{len(tokens):,} users and {items.shape[0]:,} items, BPR, D = 64. RecBole's full-sort evaluation of the "
        f"validation data, {len(valid_data.uid_list):,} users, with its metrics; ours from tokens to tokens. Both "
        "leave out what was trained on. The process of its own counts from reading the file on, without Python's "
        f"start. Runs are interleaved, {options.rounds} rounds.",
    )
    print_table(
        ["side", "median s", "min - max", "this / ours"],
        [[side, *_cells(times[side], times[_OURS], 1.0)] for side in times],
    )


def _evaluation(config, train_data) -> Callable[..., float]:
    trainer = make_trainer("stock", config, train_data._dataset, 1)
    trainer.eval_collector.data_collect(train_data)
    return lambda data: _seconds_of(lambda: trainer.evaluate(data, load_best_model=False))


_PRINTERS = {
    "one": _print_one,
    "many": _print_many,
    "fresh": _print_fresh,
    "requests": _print_requests,
    "reload": _print_reload,
    "all": _print_all,
}
_HEAD = ["table", "side", "median ms a user", "min - max", "this / ours", "index, s"]


def _what(options: argparse.Namespace, searched: Sequence[Searched]) -> str:
    generated, ml_1m = options.epochs
    said = {
        "power-law": f"power-law: BPR, {generated} epochs on {options.interactions:,} generated interactions of "
        f"{options.users:,} users and {options.items:,} items whose popularity follows a power law.",
        "ml-1m drawn": f"ml-1m drawn: BPR, {ml_1m} epochs on ml-1m; {options.items:,} items drawn from its own "
        "with noise of a tenth of the values' standard deviation. So many are alike, which flatters pruning.",
    }
    tables = " ".join(said[table.name] for table in searched)
    return (
        f"D = 64, density 0.1. {tables} Users are drawn from those with a weight. Runs are interleaved, "
        f"{options.rounds} rounds."
    )


def _measured(
    options: argparse.Namespace, table: Searched, makers: dict[str, Callable[[sp.csr_matrix], Search]], calls: list
) -> list[list[str]]:
    n, searches, built = sum(part.shape[0] for part in calls), {}, {}
    for name, make in makers.items():
        start = perf_counter()
        searches[name] = make(table.items)
        built[name] = perf_counter() - start
    dense_calls = [part.toarray() for part in calls]
    scores = {
        name: np.concatenate([search(q, options.k) for q in dense_calls]) for name, search in searches.items()
    }
    for name, found in scores.items():
        np.testing.assert_allclose(found, scores[_OURS], rtol=1e-3, atol=1e-3, err_msg=name)
    times = alternate(
        {name: lambda s=search: _seconds(s, dense_calls, options.k) / n for name, search in searches.items()},
        options.rounds,
    )
    return [[table.name, name, *_cells(times[name], times[_OURS]), f"{built[name]:.2f}"] for name in searches]


def _cells(times: Times, ours: Times, unit: float = 1e-3) -> list[str]:
    return [*time_cells(times, None, unit, 3)[:2], f"{times.median / ours.median:.1f} x"]


def _seconds(search: Search, calls: list[np.ndarray], k: int) -> float:
    return _seconds_of(lambda: [search(queries, k) for queries in calls])


def _seconds_of(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _ours(items: sp.csr_matrix) -> Search:
    search = ExactTopK(items.data, items.indices.astype(np.uint8), items.indptr, items.shape[1])
    search.prepare()
    return lambda queries, k: search.search(queries, k, threads=torch.get_num_threads())[1]


def _dense(items: sp.csr_matrix) -> Search:
    table = torch.from_numpy(items.toarray()).T

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        parts = torch.from_numpy(queries).split(_DENSE_BATCH)
        return torch.cat([(part @ table).topk(k).values for part in parts]).numpy()

    return search


def _faiss(items: sp.csr_matrix) -> Search:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items.toarray())
    return lambda queries, k: index.search(queries, k)[0]


def _implicit(items: sp.csr_matrix) -> Search:
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=items.shape[1], num_threads=torch.get_num_threads())
    model.item_factors = items.toarray()

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        model.user_factors = queries
        users = np.arange(len(queries))
        return model.recommend(users, None, N=k, filter_already_liked_items=False)[1]

    return search


if __name__ == "__main__":
    main()
