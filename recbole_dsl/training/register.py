"""Let unchanged RecBole scripts train with Dynamic Sparse Learning."""

import importlib
import inspect
import os
from types import FunctionType
from typing import Any

import recbole.model
import recbole.trainer
from recbole.utils import get_trainer

from recbole_dsl.checkpoint.archive import has_checksum
from recbole_dsl.config import DSLConfig, nearest
from recbole_dsl.errors import DSLError
from recbole_dsl.options.recbole_models import refuse_without_gradients, trainable_models
from recbole_dsl.patching import changes
from recbole_dsl.training.trainer import dsl_trainer

# the trainer that RecBole had for each registered model, None where it had no special one
_replaced: dict[str, Any] = {}
# RecBole's own ``load_data_and_model``, once `register` has changed it to read our files too
_recboles_loader: list[FunctionType] = []


@changes("recbole.trainer.<model>Trainer", "get_trainer takes what has that name", "unregister")
def register(*models: str | type, **options: Any) -> None:
    """Make RecBole's own ``run_recbole`` train ``models`` with Dynamic Sparse Learning.

        recbole_dsl.register("LightGCN", density=0.1)
        run_recbole(model="LightGCN", dataset="ml-100k")

    RecBole's ``load_data_and_model`` then gives the sparse model for a checkpoint of ours.

    Args:
        models: names of RecBole models, or classes of the user's own models; without any, all models of RecBole
            that are trained by gradients.
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
    _read_our_files()
    for name in names or known:
        attribute = f"{name}Trainer"
        if name not in _replaced:
            _replaced[name] = vars(recbole.trainer).get(attribute)
        base = _replaced[name] or get_trainer(known[name], f"the usual {name}")
        trainer = type(f"DSL{attribute}", (dsl_trainer(base),), {"default_options": options})
        setattr(recbole.trainer, attribute, trainer)


@changes("recbole.trainer.<model>Trainer", "a model that was registered has its own trainer again", "register")
def unregister(*models: str | type) -> None:
    """Give ``models``, or all that are registered, their own trainers back."""
    for name in [m.__name__ if isinstance(m, type) else m for m in models] or list(_replaced):
        trainer = _replaced.pop(name)
        if trainer is None:
            delattr(recbole.trainer, f"{name}Trainer")
        else:
            setattr(recbole.trainer, f"{name}Trainer", trainer)


def load_either(model_file: Any) -> tuple:
    """What our ``load_data_and_model`` returns for a file of ours, and RecBole's for one of its own."""
    if isinstance(model_file, (str, os.PathLike)) and os.path.isfile(model_file) and has_checksum(model_file):
        # it imports this module
        return importlib.import_module("recbole_dsl.training.quick_start").load_data_and_model(
            os.fspath(model_file)
        )
    return _recboles_loader[0](model_file)


def _load_data_and_model(model_file):
    # its code runs with the globals of RecBole's module
    from recbole_dsl.training.register import load_either

    return load_either(model_file)


@changes(
    "recbole.quick_start.load_data_and_model", "it is to load our files too, for unchanged scripts", "the end"
)
def _read_our_files() -> None:
    """Let RecBole's ``load_data_and_model`` read our files, wherever a script has taken it from and when."""
    loader = inspect.unwrap(importlib.import_module("recbole.quick_start.quick_start").load_data_and_model)
    if not _recboles_loader:
        _recboles_loader.append(FunctionType(loader.__code__, loader.__globals__))
        # not the name in the module, as a script may have imported the function before
        loader.__code__ = _load_data_and_model.__code__
