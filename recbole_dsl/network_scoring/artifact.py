"""Restoring a network, and scoring by it, from an artifact alone."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import StringIO
from typing import Any

from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.transform import construct_transform
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.codec import from_bytes, from_json
from recbole_dsl.network_scoring.limits import Limits, WorkBounded, check_cells, check_counts, numbers_checked
from recbole_dsl.network_scoring.randomness import drawing_from
from recbole_dsl.network_scoring.scorer import NetworkScorer
from recbole_dsl.network_scoring.stored_dataset import read_sequences, rebuild_dataset, token_counts
from recbole_dsl.network_scoring.stored_weights import read_weights
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.patching import Patch, variable
from recbole_dsl.serving.artifact import Artifact, refused
from recbole_dsl.sparse.deferred import make_the_rest
from recbole_dsl.sparse.validity import PARTS
from recbole_dsl.training.configs import config_without_data
from recbole_dsl.training.model_building import make_model
from recbole_dsl.training.model_state import restore_model
from recbole_dsl.turns import turn

PREFIX = "network."
# the options of a Config for scoring on the CPU
_SERVED = {"gpu_id": "", "show_progress": False}
# no file is there, whatever a model looks for beside its data
_NOWHERE = os.path.join(os.devnull, "no data")
_STDOUT = Patch("sys", "stdout", "models of RecBole print while they are made, where recommendations may go")
_GPUS = variable("CUDA_VISIBLE_DEVICES", "RecBole's Config hides the GPUs for a run on the CPU, from others too")


@turn()
def load(artifact: Artifact, model_class: type | None = None) -> NetworkScorer:
    """The scorer of an artifact of the kind "network"; on the CPU.

    Args:
        model_class: the model's class, if it is not one of RecBole's.

    Raises:
        DSLError: if anything in it is not as ``export`` stores it, or does not fit the model.
    """
    header, dataset_name = artifact.header["scorer"], artifact.header["dataset"]
    # RecBole looks for files of these names in its package
    if not artifact.header["model"].isidentifier() or os.path.basename(dataset_name) != dataset_name:
        artifact.refuse("must name a model and a dataset whose names are no paths")
    # parts that are missing or wrong raise where they are used
    with _refused(artifact, "its network cannot be read"):
        all_arrays = dict(artifact.arrays)
        for name, form in header["as_bytes"].items():
            all_arrays[name] = from_bytes(all_arrays[name], form)
        state, shapes = read_weights(header["weights"], artifact, all_arrays)
        arrays = {name.removeprefix(PREFIX): one for name, one in all_arrays.items() if name.startswith(PREFIX)}
        checkpoint = {
            "model": artifact.header["model"],
            "dataset": dataset_name,
            "config": dict(from_json(header["options"], arrays, "options")),
            "shapes": shapes,
            "state_dict": state,
            "other_parameter": from_json(header["other_parameter"], arrays, "other"),
        }
    with _GPUS.by(os.environ.get("CUDA_VISIBLE_DEVICES")):
        config = config_without_data(checkpoint, artifact.path, _SERVED, model_class)
    config["data_path"] = _NOWHERE
    with _refused(artifact, "its network cannot be read"):
        n_users, n_items = artifact.header["n_users"] + 1, artifact.header["n_items"] + 1
        sequences = read_sequences(arrays, n_users, n_items) if header["has_histories"] else None
        sparse = {f"{name}.{part}" for name in shapes for part in PARTS}
        limits = Limits(
            [*shapes.values(), *(tuple(tensor.shape) for name, tensor in state.items() if name not in sparse)],
            sum(array.nbytes for array in artifact.arrays.values()),
            sum(array.nbytes for name, array in artifact.arrays.items() if "_feat/" in name),
            n_users,
            n_items,
            0 if sequences is None else int(sequences.lengths.max(initial=0)),
        )
        check_cells(shapes, state)
        check_counts(token_counts(header["data"]), limits, config)
        dataset = rebuild_dataset(config, header["data"], arrays)
        draws = bool(header["draws"])
    with (
        _refused(artifact, "its model cannot be made"),
        numbers_checked(config, limits),
        WorkBounded(limits),
    ):
        model = restored_model(config, dataset, checkpoint, artifact.path)
    scorer = NetworkScorer(model, config, dataset, sequences, draws)
    with _refused(artifact, "its model cannot score"), WorkBounded(limits):
        scorer.try_out()
    return scorer


def restored_model(
    config: Config, dataset: Dataset, checkpoint: Mapping[str, Any], path: str
) -> AbstractRecommender:
    """The model of ``checkpoint`` as ``load_data_and_model`` makes it, in evaluation mode."""
    construct_transform(config)
    # models of RecBole print while they are made, and standard output may be for recommendations
    with drawing_from(config["seed"]), _STDOUT.by(StringIO()):
        model = make_model(config, dataset, {path: checkpoint})
        restore_model(model, checkpoint, path)
        make_the_rest(model)
    return model.to(config["device"]).eval()


def _refused(artifact: Artifact, words: str) -> AbstractContextManager[None]:
    return refused_in_one_line(str(refused(artifact.path, words)), is_of_a_file=True)
