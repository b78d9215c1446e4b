"""A model, its data and its trainer, as a RecBole script makes them."""

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from recbole_dsl import dsl_trainer


def prepare(model, options, dataset="tiny"):
    """(config, model, train_data, valid_data, test_data) of RecBole, which knows nothing of sparsity."""
    config = Config(model=model, dataset=dataset, config_dict=dict(options))
    init_seed(config["seed"], config["reproducibility"])
    data = create_dataset(config)
    loaders = data_preparation(config, data)
    init_seed(config["seed"], config["reproducibility"])
    return config, get_model(config["model"])(config, loaders[0]._dataset), *loaders


def metrics(result):
    """What `run_recbole` returns of the result of `run_recbole_dsl`."""
    return {name: value for name, value in result.items() if name not in ("model_file", "cost")}


def train(model, options, dataset="tiny"):
    """(trainer, test_data) after a training with the sparse counterpart of the model's own trainer."""
    config, network, train_data, valid_data, test_data = prepare(model, options, dataset)
    trainer = dsl_trainer(get_trainer(config["MODEL_TYPE"], config["model"]))(config, network)
    trainer.fit(train_data, valid_data, show_progress=False)
    return trainer, test_data
