"""What Ray Tune's ASHA saves of a search, and whether a trial whose worker is killed ends as if it were not.

    python -m benchmarks.tuning --threads 1
    python -m benchmarks.tuning --threads 1 --kills 0

Trials run side by side, so that the order in which ASHA sees them, and with it the epochs, vary a little.
"""

import argparse
import os
import random
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import parse, print_header, print_table
from recbole_dsl.compat.for_ray import run_classes
from recbole_dsl.training.trainer import DSLMixin
from recbole_dsl.tuning.objective import tune_objective
from recbole_dsl.tuning.search import SearchResult, SearchSettings, run_search

_PARAMETERS = Path(__file__).parent.parent / "properties" / "tuning" / "BPR.hyper"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of the epochs with and without ASHA, and one of the trials that were killed."""
    parser = argparse.ArgumentParser(prog="benchmarks.tuning", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--kills", type=int, default=10, help="trials whose worker is killed")
    parser.add_argument("--params_file", default=str(_PARAMETERS))
    options = parse(parser, arguments)
    shared = {
        "data_path": os.path.abspath(options.data_path),
        "epochs": options.epochs,
        # of whole batches of users, as RecBole scores all items of each
        "eval_batch_size": 409_600,
        "show_progress": False,
        "state": "warning",
    }
    with tempfile.TemporaryDirectory() as folder:
        found = {name: _search(options, shared, name, folder) for name in ("fifo", "asha")}
    _print_searches(options, found)
    if options.kills:
        _print_kills(options, {**shared, "model": "BPR", "dataset": options.dataset})


def _search(options: argparse.Namespace, shared: Mapping[str, Any], scheduler: str, folder: str) -> SearchResult:
    output = os.path.join(folder, scheduler)
    settings = SearchSettings(
        params_file=options.params_file, engine="ray", scheduler=scheduler, output=output, trial_gpus=0
    )
    return run_search("BPR", options.dataset, None, settings, shared)


def _print_searches(options: argparse.Namespace, found: Mapping[str, SearchResult]) -> None:
    all_epochs = sum(trial.epochs for trial in found["fifo"].trials)
    rows = []
    for name, result in found.items():
        epochs = sum(trial.epochs for trial in result.trials)
        best = ", ".join(f"{option}={value}" for option, value in result.best.options.items())
        rows.append([name, str(len(result.trials)), str(epochs), f"{epochs / all_epochs:.0%}", best])
        rows[-1].append(f"{result.best.score:.4f}")
    print_header(
        f"A search with Ray Tune's ASHA, BPR on {options.dataset}",
        options,
        f"{len(found['fifo'].trials)} trials of {options.epochs} epochs, selected on the validation data.",
    )
    print_table(["scheduler", "trials", "epochs", "of all", "the best trial", "its score"], rows)


def _print_kills(options: argparse.Namespace, shared: Mapping[str, Any]) -> None:
    import ray
    from ray import tune

    draw = random.Random(0)
    kills = [None, *(draw.randrange(options.epochs) for _ in range(options.kills))]
    run_config, failure_config, _ = run_classes()
    ray.init(include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        space = [
            {"options": dict(shared), "kill": epoch, "log": os.path.join(folder, f"{number}.log")}
            for number, epoch in enumerate(kills)
        ]
        tuner = tune.Tuner(
            tune.with_resources(_killed, {"cpu": 1}),
            param_space={"trial": tune.grid_search(space)},
            run_config=run_config(
                name="kills", storage_path=folder, failure_config=failure_config(max_failures=1), verbose=0
            ),
        )
        results = sorted(tuner.fit(), key=lambda result: int(Path(result.config["trial"]["log"]).stem))
        logs = [Path(one["log"]).read_text().split() for one in space]
    ray.shutdown()
    parts = ("valid_score", "best_valid_score", "best_valid_result", "epoch", "is_last")
    ends = [{part: result.metrics[part] for part in parts} for result in results]
    rows = []
    for kill, log, end in zip(kills, logs, ends):
        began = "-" if kill is None else log[log.index(str(kill)) + 1]
        cell = "-" if kill is None else str(kill)
        rows.append([cell, began, str(len(log)), repr(end["best_valid_score"]), str(end == ends[0])])
    print_header(
        f"Trials whose worker is killed, BPR on {options.dataset}",
        options,
        f"{options.epochs} epochs, an evaluation after each. SIGKILL when an epoch has been trained, before it "
        "is evaluated. Equal: in every metric of the best and the last epoch, to the last digit.",
    )
    print_table(["killed in epoch", "goes on in epoch", "epochs trained", "best validation score", "equal"], rows)


def _killed(config: Mapping[str, Any]) -> None:
    """A trial that kills its own worker, once."""
    trial = config["trial"]
    log, usual = Path(trial["log"]), DSLMixin._valid_epoch

    def valid_epoch(self: DSLMixin, *args: Any, **kwargs: Any) -> Any:
        seen = log.read_text().split() if log.exists() else []
        epoch = str(self._epoch)
        log.write_text(" ".join([*seen, epoch]))
        if self._epoch == trial["kill"] and epoch not in seen:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, *args, **kwargs)

    DSLMixin._valid_epoch = valid_epoch
    tune_objective(trial["options"])


if __name__ == "__main__":
    main()
