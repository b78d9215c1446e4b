"""The part of an artifact that is a network: its weights, its options, and what it reads of its data."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.transform import construct_transform
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.codec import as_bytes, from_bytes, from_json, to_json
from recbole_dsl.errors import DSLError, shown
from recbole_dsl.network_scoring.histories import last_sequences, read_histories, store_histories
from recbole_dsl.network_scoring.limits import Held, WorkBounded, check_cells, check_counts, numbers_checked
from recbole_dsl.network_scoring.randomness import drawing_from, drawn_so_far
from recbole_dsl.network_scoring.reading import noting_dataset
from recbole_dsl.network_scoring.scorer import NetworkScorer
from recbole_dsl.network_scoring.stored_dataset import rebuild_dataset, store_dataset, token_counts
from recbole_dsl.network_scoring.stored_weights import PARTS, read_weights, store_weights
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.options.stored_options import options_without_places
from recbole_dsl.patching import Patch, variable
from recbole_dsl.serving.artifact import TYPES, Artifact, refused
from recbole_dsl.serving.lists import Lists
from recbole_dsl.sparse.deferred import make_the_rest
from recbole_dsl.sparse.modules import sparse_shapes
from recbole_dsl.training.configs import config_without_data
from recbole_dsl.training.model_building import make_model
from recbole_dsl.training.model_state import drop_caches, restore_model
from recbole_dsl.turns import turn

_PREFIX = "network."
# what a Config is told that is for scoring on the CPU
_SERVED = {"gpu_id": "", "show_progress": False}
# where there is no file, whatever a model looks for beside its data
_NOWHERE = os.path.join(os.devnull, "no data")
# how many users are scored to see what a model reads, and that it can do without the rest
_TRIED = 8
_STDOUT = Patch("sys", "stdout", "models of RecBole print while they are made, where recommendations may go")
_GPUS = variable("CUDA_VISIBLE_DEVICES", "RecBole's Config hides the GPUs for a run on the CPU, from others too")


def parts(
    config: Config,
    dataset: Dataset,
    train_dataset: Dataset,
    checkpoint: Mapping[str, Any],
    values: str = "fp32",
    seen: str = "all",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What an artifact needs to serve the model of ``checkpoint`` through its network, without its data.

    Of the data that is what the model reads when it is made and when it scores, which is found by doing both; of a
    sequential model also what each user has done last. What comes out is tried: the model that is made of it gives
    the same scores.

    Args:
        dataset: all of the data.
        train_dataset: the part that the model was trained on.
        values: "fp32", "fp16", "int8" or "int4", for the values of sparse weights.
        seen: "trained" for sequences of users as they were trained on; with anything else they are all that the
            data has, validation and test items too.

    Returns:
        the header, JSON, and arrays whose names begin with "network.".

    Raises:
        DSLError: if the model reads what cannot be exported, or what is not known when recommending.
    """
    model_file = f"the checkpoint of {config['model']}"
    histories = None
    if isinstance(train_dataset, SequentialDataset):
        histories = last_sequences(train_dataset if seen == "trained" else dataset)
    noting, read = noting_dataset(train_dataset)
    model = _made(config, noting, checkpoint, model_file)
    scorer = NetworkScorer(model, config, noting, histories, draws=False, noted=set())
    expected, drew = _tried(scorer, 0)
    if drew and not _are_close(expected, _tried(scorer, 1)[0]):
        scorer.draws = True
        expected, _ = _tried(scorer, 0)
    for table in read.columns.values():
        table |= scorer.noted
    arrays: dict[str, np.ndarray] = {}
    header = {
        "options": to_json(options_without_places(checkpoint), arrays, "options"),
        "data": store_dataset(train_dataset, read, arrays),
        "other_parameter": to_json(checkpoint["other_parameter"], arrays, "other"),
        "draws": scorer.draws,
        "has_histories": histories is not None,
    }
    if histories is not None:
        store_histories(histories, arrays)
    arrays = {_PREFIX + name: array for name, array in arrays.items()}

    def with_weights(values: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        all_arrays, shapes = dict(arrays), sparse_shapes(model)
        weights = store_weights(checkpoint["state_dict"], shapes, values, f"{_PREFIX}weights.", all_arrays)
        as_they_are = {name: array for name, array in all_arrays.items() if array.dtype.str[1:] in TYPES.values()}
        others = {name: as_bytes(all_arrays[name]) for name in all_arrays.keys() - as_they_are.keys()}
        forms = {name: form for name, (_, form) in others.items()}
        content = {name: content for name, (content, _) in others.items()}
        return {**header, "weights": weights, "as_bytes": forms}, {**as_they_are, **content}

    _check(scorer, expected, *with_weights("fp32"))
    return with_weights(values)


@turn()
def load(artifact: Artifact, model_class: type | None = None) -> NetworkScorer:
    """What scores by the network that `parts` made part of ``artifact``; on the CPU.

    Args:
        model_class: the model's class, if it is not one of RecBole's.

    Raises:
        DSLError: if anything of it is not as `parts` makes it, or does not fit the model.
    """
    header, dataset_name = artifact.header["scorer"], artifact.header["dataset"]
    # RecBole looks for files of these names in its package
    if not artifact.header["model"].isidentifier() or os.path.basename(dataset_name) != dataset_name:
        artifact.refuse("must be of a model and a dataset whose names are no paths")
    with _understood(artifact):
        all_arrays = dict(artifact.arrays)
        for name, form in header["as_bytes"].items():
            all_arrays[name] = from_bytes(all_arrays[name], form)
        state, shapes = read_weights(header["weights"], artifact, all_arrays)
        arrays = {name.removeprefix(_PREFIX): one for name, one in all_arrays.items() if name.startswith(_PREFIX)}
        checkpoint = {
            "model": artifact.header["model"],
            "dataset": artifact.header["dataset"],
            "config": from_json(header["options"], arrays, "options"),
            "shapes": shapes,
            "state_dict": state,
            "other_parameter": from_json(header["other_parameter"], arrays, "other"),
        }
    with _GPUS.by(os.environ.get("CUDA_VISIBLE_DEVICES")):
        config = config_without_data(checkpoint, artifact.path, _SERVED, model_class)
    config["data_path"] = _NOWHERE
    with _understood(artifact):
        n_users, n_items = artifact.header["n_users"] + 1, artifact.header["n_items"] + 1
        histories = read_histories(arrays, n_users, n_items) if header["has_histories"] else None
        held = _held(artifact, state, shapes, histories)
        check_cells(shapes, state)
        check_counts(token_counts(header["data"]), held, config)
        dataset = rebuild_dataset(config, header["data"], arrays)
        draws = bool(header["draws"])
    with (
        refused_in_one_line(str(refused(artifact.path, "its model cannot be made")), is_of_a_file=True),
        numbers_checked(config, held),
        WorkBounded(held),
    ):
        model = _made(config, dataset, checkpoint, artifact.path)
    scorer = NetworkScorer(model, config, dataset, histories, draws)
    cannot_score = str(refused(artifact.path, "its model cannot score"))
    with refused_in_one_line(cannot_score, is_of_a_file=True), WorkBounded(held):
        scorer.try_out()
    return scorer


def _held(
    artifact: Artifact, state: Mapping[str, Any], shapes: Mapping[str, list[int]], histories: Lists | None
) -> Held:
    sparse = {f"{name}.{part}" for name in shapes for part in PARTS}
    tables = [array.nbytes for name, array in artifact.arrays.items() if "_feat/" in name]
    return Held(
        [*shapes.values(), *(tuple(tensor.shape) for name, tensor in state.items() if name not in sparse)],
        sum(array.nbytes for array in artifact.arrays.values()),
        sum(tables),
        artifact.header["n_users"] + 1,
        artifact.header["n_items"] + 1,
        0 if histories is None else int(np.diff(histories.offsets).max(initial=0)),
    )


@contextmanager
def _understood(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except DSLError:
        raise
    except Exception as error:
        # what is missing or of another kind shows itself as it happens to be used
        words = shown(f"{type(error).__name__}: {error}")
        raise refused(artifact.path, f"its network cannot be read: {words}") from error


def _made(config: Config, dataset: Dataset, checkpoint: Mapping[str, Any], path: str) -> AbstractRecommender:
    """The model of ``checkpoint`` as ``load_data_and_model`` makes it, in evaluation mode."""
    construct_transform(config)
    # models of RecBole print while they are made, where recommendations may go
    with drawing_from(config["seed"]), _STDOUT.by(StringIO()):
        model = make_model(config, dataset, {path: checkpoint})
        restore_model(model, checkpoint, path)
        make_the_rest(model)
    return model.to(config["device"]).eval()


def _check(
    scorer: NetworkScorer, expected: list[np.ndarray], header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Refuse a model that reads more than was seen, or does not score as before when it is made again."""
    name = scorer.config["model"]
    whole = {
        "model": name,
        "dataset": scorer.config["dataset"],
        "n_users": scorer.dataset.user_num - 1,
        "n_items": scorer.dataset.item_num - 1,
        "scorer": json.loads(json.dumps(header)),
    }
    again = load(Artifact(f"that of {name}", whole, arrays), scorer.config.model_class)
    if not _are_close(expected, _tried(again, 0)[0]):
        raise DSLError(f"model={name}: scores otherwise when it is made again, so it cannot be exported")


def _tried(scorer: NetworkScorer, seed: int) -> tuple[list[np.ndarray], bool]:
    """Scores of some users, and of some histories where the model takes them; and whether anything was drawn."""
    users = np.arange(min(_TRIED, scorer.dataset.user_num - 1))
    # KGIN draws for what it keeps between batches
    drop_caches(scorer.model)
    with drawing_from(seed):
        before = drawn_so_far()
        found = [scorer.scores(users)]
        if scorer.takes_histories:
            items = np.arange(min(3, scorer.dataset.item_num - 1))
            found.append(scorer.scores_for(Lists.of([items, items[:1]])))
        return found, drawn_so_far() != before


def _are_close(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(some, others))
