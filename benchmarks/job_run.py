"""One whole job in this process: from its start to the test result, with the time of its parts, as a line of JSON.

``benchmarks.job`` starts it: ``python -m benchmarks.job_run '{"side": "ours", "model": "BPR", ...}'``.
"""

import json
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from time import time
from typing import Any

# RecBole reads the command line
SETTINGS = json.loads(sys.argv.pop())
BEGAN = time()


class Stopwatch:
    """The seconds of each part, those of the parts within it left out."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._within: list[float] = []

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the calls of ``owner.name`` as ``part``."""
        usual = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = time()
            self._within.append(0.0)
            try:
                return usual(*args, **kwargs)
            finally:
                took = time() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        setattr(owner, name, watched)


class _Begun(Exception):
    """The training begins, and nothing after that is asked for."""


def main() -> None:
    """Run the job that ``SETTINGS`` describe and print what it took."""
    import torch

    if SETTINGS["threads"]:
        torch.set_num_threads(SETTINGS["threads"])
    stopwatch, scores, began = Stopwatch(), [], []
    run = _ours(stopwatch) if SETTINGS["side"].startswith("ours") else _stock(stopwatch)
    _watch_trainer(stopwatch, scores, began)
    shares = _sample() if SETTINGS.get("sample") else {}
    imported = time()
    with _sampled() if SETTINGS.get("profile") else nullcontext([]) as functions:
        result: dict[str, Any] = {"test_result": {}}
        with suppress(_Begun):
            result = run(
                model=SETTINGS["model"],
                dataset=SETTINGS["dataset"],
                config_dict={"state": "ERROR", **SETTINGS["options"]},
            )
    parts = {part: seconds / shares.get(part, 1) for part, seconds in stopwatch.seconds.items()}
    line = {
        "imports": imported - BEGAN,
        "until_trained": began[0] - imported,
        "parts": parts,
        "not_run": sum(parts.values()) - sum(stopwatch.seconds.values()),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "scores": [(when - SETTINGS["began"], score) for when, score in scores],
        "test": result["test_result"],
        "functions": functions,
    }
    print(json.dumps(line))


@contextmanager
def _sampled(n: int = 12) -> Iterator[list[tuple[str, float]]]:
    """Where this thread is, every 5 ms; afterwards the ``n`` functions that it was in most, and their shares.

    cProfile counts the calls of other threads into those of this one.
    """
    seen: Counter[str] = Counter()
    thread, is_over = threading.get_ident(), threading.Event()

    def sample() -> None:
        while not is_over.wait(0.005):
            code = sys._current_frames()[thread].f_code
            place = Path(code.co_filename)
            seen[f"{place.parent.name}/{place.name}: {code.co_name}"] += 1

    sampler = threading.Thread(target=sample)
    sampler.start()
    found: list[tuple[str, float]] = []
    try:
        yield found
    finally:
        is_over.set()
        sampler.join()
        found += [(name, count / seen.total()) for name, count in seen.most_common(n)]


def _ours(stopwatch: Stopwatch) -> Callable[..., dict[str, Any]]:
    from recbole_dsl import run_recbole_dsl
    from recbole_dsl.data import loading as run_data
    from recbole_dsl.training import resumable, trainer

    stopwatch.watch(run_data, "load_dataset", "load")
    stopwatch.watch(run_data, "data_preparation", "split")
    stopwatch.watch(trainer, "start_weights", "start")
    stopwatch.watch(resumable, "write_checkpoint", "save")
    return run_recbole_dsl


def _stock(stopwatch: Stopwatch) -> Callable[..., dict[str, Any]]:
    from recbole.quick_start import quick_start
    from recbole.trainer import Trainer

    import recbole_dsl.compat  # noqa: F401

    stopwatch.watch(quick_start, "create_dataset", "load")
    stopwatch.watch(quick_start, "data_preparation", "split")
    stopwatch.watch(Trainer, "_save_checkpoint", "save")
    if SETTINGS["side"] == "stock_fused":
        import torch

        usual = torch.optim.Adam
        torch.optim.Adam = lambda *args, **kwargs: usual(*args, **kwargs, fused=True)
    return quick_start.run_recbole


def _sample() -> dict[str, float]:
    """Let RecBole's trainer take some of its steps and evaluate some of the users; the share of each part."""
    from recbole.trainer import Trainer

    from benchmarks.evaluation import first_samples
    from benchmarks.sides import FirstBatches

    steps, users = SETTINGS["sample"]
    usual_train, usual_evaluate = Trainer._train_epoch, Trainer.evaluate
    shares = {}

    def train_epoch(self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        shares["train"] = min(1, steps / len(data))
        return usual_train(self, FirstBatches(data, min(steps, len(data))), *args, **kwargs)

    def evaluate(self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        shares["evaluate"] = min(1, users / data.sample_size)
        return usual_evaluate(self, first_samples(data, users), *args, **kwargs)

    Trainer._train_epoch, Trainer.evaluate = train_epoch, evaluate
    return shares


def _watch_trainer(stopwatch: Stopwatch, scores: list[tuple[float, float]], began: list[float]) -> None:
    from recbole.trainer import Trainer

    usual_train = Trainer._train_epoch

    def train_epoch(*args: Any, **kwargs: Any) -> Any:
        began.append(time())
        if SETTINGS["until_training"]:
            raise _Begun
        return usual_train(*args, **kwargs)

    Trainer._train_epoch = train_epoch
    stopwatch.watch(Trainer, "_train_epoch", "train")
    usual = Trainer._valid_epoch

    def valid_epoch(*args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        found = usual(*args, **kwargs)
        scores.append((time(), found[0]))
        return found

    Trainer._valid_epoch = valid_epoch
    stopwatch.watch(Trainer, "evaluate", "evaluate")


if __name__ == "__main__":
    main()
