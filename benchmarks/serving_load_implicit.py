"""implicit behind the server of `recbole-dsl serve`, with the vectors of an artifact; for benchmarks.serving_load.

It runs in an environment with implicit, which needs neither PyTorch nor RecBole.
"""

import argparse
import os
from typing import Any

import numpy as np
import scipy.sparse as sp
import uvicorn
from fastapi import FastAPI
from implicit.cpu.als import AlternatingLeastSquares

from recbole_dsl.service.app import Settings, make_app
from recbole_dsl.service.live import Live, Loaded
from recbole_dsl.serving.recommender import Recommender

_PATH = "BENCHMARKS_ARTIFACT"


class ImplicitRecommender:
    """What the service asks of a Recommender, answered by implicit."""

    def __init__(self, path: str):
        ours = Recommender.load(path)
        self.header, self.users, self.items = ours.header, ours.users, ours.items
        vectors = ours.to_numpy()
        self._model = AlternatingLeastSquares(factors=vectors.items.shape[1], num_threads=1)
        self._model.user_factors, self._model.item_factors = vectors.users, vectors.items
        # what implicit makes when it is first asked
        self.recommend_for([[self.items[0]]], 1)
        self.similar_items([self.items[0]], 1)

    def recommend(self, users: list, k: int, **_: Any) -> tuple:
        ids = self.users.ids([*map(str, users)])
        return self._named(self._model.recommend(ids, None, N=k, filter_already_liked_items=False))

    def recommend_for(self, histories: list, k: int, **_: Any) -> tuple:
        lists = [self.items.ids([*map(str, history)]) for history in histories]
        rows = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
        shape = len(lists), len(self.items)
        matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.concatenate(lists))), shape)
        return self._named(self._model.recommend(np.arange(len(lists)), matrix, N=k, recalculate_user=True))

    def similar_items(self, items: list, k: int, **_: Any) -> tuple:
        return self._named(self._model.similar_items(self.items.ids([*map(str, items)]), N=k))

    def _named(self, found: tuple) -> tuple:
        ids, scores = found
        return self.items.of_ids(ids.astype(np.int64)), scores


class _Fixed(Live):
    def start(self) -> None:
        self.current = Loaded(ImplicitRecommender(os.environ[_PATH]), "implicit")


def app() -> FastAPI:
    """The application of a worker."""
    path = os.environ[_PATH]
    return make_app(_Fixed(path), Settings(path))


def main() -> None:
    """Serve until the process is asked to end."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving_load_implicit")
    parser.add_argument("artifact")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    os.environ[_PATH] = options.artifact
    uvicorn.run(
        f"{__spec__.name}:app", factory=True, port=options.port, workers=options.workers,
        log_level="warning", access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
