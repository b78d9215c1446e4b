"""Let unchanged RecBole scripts train with Dynamic Sparse Learning."""

import importlib
import inspect
import os
import pkgutil
from functools import wraps
from typing import Any

import recbole.model
import recbole.trainer
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_trainer

from recbole_dsl.config import DSLConfig, nearest
from recbole_dsl.errors import DSLError
from recbole_dsl.training.run_options import has_gradients, refuse_without_gradients
from recbole_dsl.training.trainer import dsl_trainer
from recbole_dsl.training.whole_files import has_checksum

# the trainer that RecBole had for each registered model, None where it had no special one
_replaced: dict[str, Any] = {}


def register(*models: str | type, **options: Any) -> None:
    """Make RecBole's own ``run_recbole`` train ``models`` with Dynamic Sparse Learning.

        recbole_dsl.register("LightGCN", density=0.1)
        run_recbole(model="LightGCN", dataset="ml-100k")

    RecBole's ``load_data_and_model`` then says of a checkpoint of ours what reads it.

    Args:
        models: names of RecBole models, or classes of models of one's own, for which ``get_trainer`` then gives
            the trainer; all of RecBole's that are trained by gradients if there are none.
        options: options of `DSLConfig`, which those of the Config (files, dict, command line) override.

    Raises:
        DSLError: if a model or an option is unknown or wrong; nothing is registered then.
    """
    DSLConfig.build(**options)
    known = trainable_models()
    own = {model.__name__: model.type for model in models if isinstance(model, type)}
    names = [model.__name__ if isinstance(model, type) else model for model in models]
    for name in names:
        if name not in known and name not in own:
            match = nearest(name, known)
            hint = f"did you mean {match}?" if match else "must be a RecBole model that is trained by gradients"
            raise DSLError(f"model={name}: {hint}")
    for name, model_type in own.items():
        refuse_without_gradients(name, model_type)
    known |= own
    _name_our_files()
    for name in names or known:
        attribute = f"{name}Trainer"
        if name not in _replaced:
            _replaced[name] = vars(recbole.trainer).get(attribute)
        base = _replaced[name] or get_trainer(known[name], f"the usual {name}")
        trainer = type(f"DSL{attribute}", (dsl_trainer(base),), {"default_options": options})
        setattr(recbole.trainer, attribute, trainer)


def unregister(*models: str | type) -> None:
    """Give ``models``, or all that are registered, their own trainers back."""
    for name in [m.__name__ if isinstance(m, type) else m for m in models] or list(_replaced):
        trainer = _replaced.pop(name)
        if trainer is None:
            delattr(recbole.trainer, f"{name}Trainer")
        else:
            setattr(recbole.trainer, f"{name}Trainer", trainer)


def trainable_models() -> dict[str, ModelType]:
    """RecBole's models that are trained by gradients: name -> type."""
    found = {}
    for package in pkgutil.iter_modules(recbole.model.__path__, "recbole.model."):
        if not package.ispkg or package.name.endswith("exlib_recommender"):
            continue
        for name, member in vars(importlib.import_module(package.name)).items():
            if (
                inspect.isclass(member)
                and issubclass(member, AbstractRecommender)
                and has_gradients(name, member.type)
            ):
                found[name] = member.type
    return found


def _name_our_files() -> None:
    import recbole.quick_start
    import recbole.quick_start.quick_start

    usual = recbole.quick_start.load_data_and_model
    if getattr(usual, "names_our_files", False):
        return

    @wraps(usual)
    def load_data_and_model(model_file: str) -> tuple:
        if os.path.isfile(model_file) and has_checksum(model_file):
            raise DSLError(f"model_file={model_file}: is read by recbole_dsl.load_data_and_model")
        return usual(model_file)

    load_data_and_model.names_our_files = True
    for module in (recbole.quick_start, recbole.quick_start.quick_start):
        module.load_data_and_model = load_data_and_model
