"""Let unchanged RecBole scripts train with Dynamic Sparse Learning."""

import importlib
import inspect
import pkgutil
from typing import Any

import recbole.model
import recbole.trainer
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_trainer

from recbole_dsl.config import DSLConfig, nearest
from recbole_dsl.errors import DSLError
from recbole_dsl.training.run_options import has_gradients
from recbole_dsl.training.trainer import dsl_trainer

# the trainer that RecBole had for each registered model, None where it had no special one
_replaced: dict[str, Any] = {}


def register(*models: str, **options: Any) -> None:
    """Make RecBole's own ``run_recbole`` train ``models`` with Dynamic Sparse Learning.

        recbole_dsl.register("LightGCN", density=0.1)
        run_recbole(model="LightGCN", dataset="ml-100k")

    Args:
        models: names of RecBole models; all that are trained by gradients if there are none.
        options: options of `DSLConfig`, which those of the Config (files, dict, command line) override.

    Raises:
        DSLError: if a model or an option is unknown or wrong; nothing is registered then.
    """
    DSLConfig.build(**options)
    known = trainable_models()
    for name in models:
        if name not in known:
            match = nearest(name, known)
            hint = f"did you mean {match}?" if match else "must be a RecBole model that is trained by gradients"
            raise DSLError(f"model={name}: {hint}")
    for name in models or known:
        attribute = f"{name}Trainer"
        if name not in _replaced:
            _replaced[name] = vars(recbole.trainer).get(attribute)
        base = _replaced[name] or get_trainer(known[name], f"the usual {name}")
        trainer = type(f"DSL{attribute}", (dsl_trainer(base),), {"default_options": options})
        setattr(recbole.trainer, attribute, trainer)


def unregister(*models: str) -> None:
    """Give ``models``, or all that are registered, their own trainers back."""
    for name in models or list(_replaced):
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
