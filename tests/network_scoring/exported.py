"""Models of every kind, untrained, as artifacts: what tests of serving through a network begin with."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import ModelType, init_seed

from recbole_dsl.data.loading import load_data
from recbole_dsl.export.network import network_parts
from recbole_dsl.options.run_options import options_to_save
from recbole_dsl.serving.artifact import write_artifact
from recbole_dsl.sparse.modules import sparse_shapes
from recbole_dsl.training.configs import build_config, trainer_of
from recbole_dsl.training.model_building import make_model
from recbole_dsl.training.model_state import save_other_parameters

DENSITY = {"density": 0.3}


@dataclass
class Exported:
    """A model and what it was exported of.

    Attributes:
        checkpoint: as far as it is exported.
    """

    config: Config
    model: torch.nn.Module
    dataset: Dataset
    train_dataset: Dataset
    checkpoint: dict[str, Any]

    @property
    def is_sequential(self) -> bool:
        return self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL

    def parts(self, **options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        header, arrays = network_parts(self.config, self.dataset, self.train_dataset, self.checkpoint, **options)
        return json.loads(json.dumps(header, allow_nan=False, sort_keys=True)), arrays

    def header(self, scorer: dict[str, Any]) -> dict[str, Any]:
        return {
            "kind": "network",
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "n_users": self.dataset.user_num - 1,
            "n_items": self.dataset.item_num - 1,
            "options": {},
            "scorer": scorer,
        }

    def write(self, path: str, **options: Any) -> str:
        """Only what is the network's part; tokens and the like are others' tests."""
        header, arrays = self.parts(**options)
        write_artifact(path, self.header(header), arrays)
        return path

    def expected(self, table: Interaction) -> np.ndarray:
        """Scores of all items, the padding left out, by ``full_sort_predict`` or ``predict`` of pairs."""
        with torch.no_grad():
            try:
                scores = self.model.full_sort_predict(table)
            except NotImplementedError:
                items = self.dataset.get_item_feature()
                pairs = table.repeat_interleave(len(items))
                pairs.update(items.repeat(len(table)))
                scores = self.model.predict(pairs)
        return scores.view(len(table), -1)[:, 1:].numpy()


def made(options: dict[str, Any], model: type | None = None) -> Exported:
    """The model that ``options`` name, or of the class ``model``: sparse, with the weights that it begins with."""
    config = build_config(model, config_dict=dict(options))
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    init_seed(config["seed"], config["reproducibility"])
    network = make_model(config, data.train._dataset)
    trainer_of(config).prepare(config, network)
    checkpoint = {
        "model": config["model"],
        "dataset": config["dataset"],
        "config": options_to_save(config),
        "state_dict": dict(network.state_dict()),
        "shapes": sparse_shapes(network),
        "other_parameter": save_other_parameters(network),
    }
    if hasattr(network, "update_attentive_A"):
        with torch.no_grad():
            network.update_attentive_A()
    return Exported(config, network.eval(), data.dataset, data.train._dataset, checkpoint)
