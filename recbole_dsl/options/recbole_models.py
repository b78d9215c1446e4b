"""The facts about single models of RecBole that others do not share: a row for each model in `FACTS`."""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import recbole.model
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import KGATTrainer, NCLTrainer, RecVAETrainer
from recbole.utils import ModelType

from recbole_dsl.errors import DSLError
from recbole_dsl.options.rules import TEXT, Rule, integer, number, one_of


@dataclass(frozen=True)
class Facts:
    """What is peculiar to one model.

    Attributes:
        has_gradients: whether it is trained by gradients; False where its type does not tell that it is not.
        package: what RecBole imports for the model and does not install.
        needs: options without which it cannot be trained sparse. What the user gives ranks above them; names of
            the two are joined.
        whole_users: whether a batch has all items of some users, and no negative items.
        needs_labels: whether it reads labels where no negative items are drawn, as its type says.
        caches: attributes that it computes from its weights when they are None.
        item_features: the option that names the features of items that it reads.
        is_of_full_length: whether its layers have the size of MAX_ITEM_LIST_LENGTH.
        reads_graph: whether it reads the files of a knowledge graph, where its type does not tell.
        values: what options whose values are names may be, where other models have other names.
    """

    has_gradients: bool = True
    package: str | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    whole_users: bool = False
    needs_labels: bool = True
    caches: frozenset[str] = frozenset()
    item_features: str | None = None
    is_of_full_length: bool = False
    reads_graph: bool = False
    values: Mapping[str, Rule] = field(default_factory=dict)


# what options whose values are names may be with all models that have them
_VALUES = {
    "hidden_act": one_of("gelu", "relu", "swish", "tanh", "sigmoid"),
    "loss_type": one_of("BPR", "CE"),
    "pooling_mode": one_of("mean", "max", "sum"),
}
_RERANKING = Facts(values={"loss_type": one_of("CE"), "reranker_CAN_NUM": integer(1) | TEXT})
_NOISES = {
    "noise_schedule": one_of("linear", "linear-var", "cosine", "binomial"),
    "mean_type": one_of("x0", "eps"),
}
_AGGREGATOR = Facts(values={"aggregator": one_of("sum", "neighbor", "concat")})
_OF_GRAPHS = frozenset({"restore_user_e", "restore_item_e", "restore_entity_e"})
_AUTOENCODER = Facts(whole_users=True, needs_labels=False)
_GRAPH = Facts(caches=_OF_GRAPHS)
_FULL_LENGTH = Facts(is_of_full_length=True)

FACTS = {
    "BERT4Rec": Facts(values={"transform": one_of("mask_itemseq")}),
    "CDAE": replace(
        _AUTOENCODER,
        values={
            "loss_type": one_of("BCE", "MSE"),
            "hid_activation": one_of("sigmoid", "relu", "tanh"),
            "out_activation": one_of("sigmoid", "relu"),
        },
    ),
    "CFKG": Facts(values={"loss_function": one_of("inner_product", "transe")}),
    "CORE": Facts(values={"loss_type": one_of("CE"), "dnn_type": one_of("trm", "ave")}),
    "Caser": _FULL_LENGTH,
    "ConvNCF": Facts(values={"train_method": one_of("after_pretrain", "no_pretrain")}),
    "DGCF": _GRAPH,
    "DIN": _FULL_LENGTH,
    "DMF": Facts(
        caches=frozenset({"i_embedding"}),
        values={"inter_matrix_type": Rule("01 or rating", lambda v: v in ("01", "rating", 1))},
    ),
    "DiffRec": replace(_AUTOENCODER, values=_NOISES),
    "ENMF": _AUTOENCODER,
    # takes the angles of complex numbers, and a modulus of zero has none
    "EulerNet": Facts(needs={"exclude": ["mu"]}),
    "FDSA": Facts(item_features="selected_features"),
    "FEARec": _FULL_LENGTH,
    "FOSSIL": _FULL_LENGTH,
    "FPMC": Facts(values={"loss_type": one_of("BPR")}),
    "GCMC": Facts(values={"accum": one_of("sum", "stack")}),
    "GRU4RecCPR": _RERANKING,
    "GRU4RecF": Facts(item_features="selected_features"),
    "GRU4RecKG": Facts(reads_graph=True),
    "HGN": replace(_FULL_LENGTH, values={"pooling_type": one_of("average", "max")}),
    "HRM": Facts(values=dict.fromkeys(("pooling_type_layer_1", "pooling_type_layer_2"), one_of("max", "average"))),
    "KGAT": Facts(package="dgl", caches=_OF_GRAPHS, values={"aggregator_type": one_of("gcn", "graphsage", "bi")}),
    "KGCN": _AGGREGATOR,
    "KGNNLS": _AGGREGATOR,
    "KGIN": Facts(package="torch_scatter", caches=_OF_GRAPHS),
    "KSR": Facts(reads_graph=True),
    "LDiffRec": replace(_AUTOENCODER, values=_NOISES),
    # without its package RecBole does not know its type
    "LightGBM": Facts(has_gradients=False),
    "LightGCN": _GRAPH,
    # divides by the norms of rows, and an empty one makes its loss NaN
    "MCCLK": Facts(package="torch_scatter", needs={"keep_rows": True}, caches=_OF_GRAPHS),
    "MacridVAE": _AUTOENCODER,
    "MultiDAE": _AUTOENCODER,
    "MultiVAE": _AUTOENCODER,
    "NAIS": Facts(values={"algorithm": one_of("prod", "concat")}),
    # RecBole counts it among the trained ones
    "NCEPLRec": Facts(has_gradients=False),
    "NCL": Facts(package="faiss", caches=_OF_GRAPHS),
    "NGCF": _GRAPH,
    "RaCT": replace(_AUTOENCODER, values={"train_stage": one_of("actor_pretrain", "critic_pretrain", "finetune")}),
    "RecVAE": _AUTOENCODER,
    "RepeatNet": Facts(needs_labels=False, is_of_full_length=True),
    "S3Rec": Facts(item_features="item_attribute", values={"train_stage": one_of("pretrain", "finetune")}),
    "SASRecCPR": _RERANKING,
    "SASRecF": Facts(item_features="selected_features"),
    "SGL": replace(_GRAPH, values={"type": one_of("ED", "ND", "RW")}),
    "SHAN": Facts(values={"transform": one_of("inverse_itemseq")}),
    "SINE": replace(_FULL_LENGTH, values={"loss_type": one_of("BPR", "CE", "NLL")}),
    "SimpleX": Facts(
        values={"aggregator": one_of("mean", "user_attention", "self_attention"), "margin": number(-1, 1)}
    ),
    "SpectralCF": _GRAPH,
    # without its package RecBole does not know its type
    "XGBoost": Facts(has_gradients=False),
}
# trainers of RecBole that several processes cannot follow, and why
_OF_ONE_PROCESS = {
    RecVAETrainer: "has two optimizers, of which each trains a part of what the processes send",
    NCLTrainer: "divides users and items into clusters in each process by itself",
    KGATTrainer: "trains on the knowledge graph apart, with a package that was not tried",
}
# packages that our extra installs on some releases of Python only: the last of them, as 3.x
_LAST_PYTHON = {"dgl": 11}


def facts_of(name: str) -> Facts:
    """The row of the model ``name``; the defaults for a model without one."""
    return FACTS.get(name, Facts())


def values_of(name: str, option: str) -> Rule | None:
    """What ``option``, whose values are names, may be with RecBole's model ``name``; None for other options."""
    return facts_of(name).values.get(option, _VALUES.get(option))


def reason_for_one_process(trainer: type) -> str | None:
    """Why several processes cannot train by ``trainer``; None if they can."""
    return next((reason for kind, reason in _OF_ONE_PROCESS.items() if issubclass(trainer, kind)), None)


def is_of_recbole(model_class: type) -> bool:
    """Whether ``model_class`` is one of RecBole's, whose files have all its options."""
    return model_class.__module__.split(".")[0] == "recbole"


def trainable_models() -> dict[str, ModelType]:
    """RecBole's models that are trained by gradients: name -> type."""
    found = {}
    for package in pkgutil.iter_modules(recbole.model.__path__, "recbole.model."):
        if not package.ispkg or package.name.endswith("exlib_recommender"):
            continue
        for name, member in vars(importlib.import_module(package.name)).items():
            is_model = inspect.isclass(member) and issubclass(member, AbstractRecommender)
            if is_model and _has_gradients(name, member.type):
                found[name] = member.type
    return found


def refuse_without_gradients(name: str, model_type: ModelType | None = None) -> None:
    """Raise a DSLError for a model that is not trained by gradients."""
    if not _has_gradients(name, model_type):
        raise DSLError(f"model={name}: must be a model with weights trained by gradients, which it does not have")


def refuse_without_package(name: str) -> None:
    """Raise a DSLError for a model of RecBole that needs a package which is not installed."""
    package = facts_of(name).package
    if package and importlib.util.find_spec(package) is None:
        last = _LAST_PYTHON.get(package, sys.version_info.minor)
        where = f" up to Python 3.{last}" if last < sys.version_info.minor else ""
        raise DSLError(f"model={name}: must have the package {package}, which our extra [models] installs{where}")


def _has_gradients(name: str, model_type: ModelType | None) -> bool:
    untrained = ModelType.TRADITIONAL, ModelType.DECISIONTREE
    return facts_of(name).has_gradients and model_type not in untrained
