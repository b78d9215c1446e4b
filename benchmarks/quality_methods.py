"""The methods that benchmarks.quality compares: each trains one model of RecBole and says what came out."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from recbole.config import Config
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from torch.nn import Module

from benchmarks.deep_hashing import hash_deeply
from benchmarks.fake_quantisation import train_for
from benchmarks.gradual import GradualPruningTrainer
from benchmarks.hashed import hash_fields
from benchmarks.joint_codes import code_items
from benchmarks.last_position import SASRec
from benchmarks.nmf import start_from_nmf
from recbole_dsl import DSLTrainer, SparsityReport, initialisation
from recbole_dsl.data.interactions import interactions_of

# the options that say how wide a model is
WIDTHS = {
    "BPR": ("embedding_size",),
    "LightGCN": ("embedding_size",),
    "NeuMF": ("mf_embedding_size", "mlp_embedding_size", "mlp_hidden_size"),
    "MultiVAE": ("mlp_hidden_size", "latent_dimension"),
    "FM": ("embedding_size",),
    "DeepFM": ("embedding_size", "mlp_hidden_size"),
    "DCNV2": ("embedding_size", "mlp_hidden_size"),
    "SASRec": ("hidden_size", "inner_size"),
    "BERT4Rec": ("hidden_size", "inner_size"),
    "GRU4Rec": ("embedding_size", "hidden_size"),
}
PUBLISHED = yaml.safe_load((Path(__file__).parent.parent / "properties/published/dsl.yaml").read_text())
# update intervals of the authors, in epochs of their data and batch sizes; they have none for BPR, for which a
# shorter one than LightGCN's does better, and for sequential models
PUBLISHED_EPOCHS = {"BPR": 1.2, "LightGCN": 3.8, "NeuMF": 1.0, "MultiVAE": 0.27}
PUBLISHED_EPOCHS |= dict.fromkeys(("SASRec", "BERT4Rec", "GRU4Rec"), 1.2)


@dataclass(frozen=True)
class Case:
    """One run: what is trained, on what, how; and RecBole's loaders, which all runs on a dataset share.

    Attributes:
        config: of the run, with the density it is compared at.
        data: (train, valid, test).
        dense_weights: gives the state of the best dense model, for methods that prune it.
    """

    config: Config
    data: tuple[Any, Any, Any]
    dense_weights: Callable[[], Mapping[str, torch.Tensor]]

    def model(self, density: float, **options: Any) -> Module:
        """RecBole's model, with the config set to ``density`` and ``options``."""
        for name, value in {"density": density, **options}.items():
            self.config[name] = value
        init_seed(self.config["seed"], self.config["reproducibility"])
        name = self.config["model"]
        kind = SASRec if name == "SASRec" else get_model(name)
        return kind(self.config, self.data[0]._dataset).to(self.config["device"])


def dense(case: Case) -> Trainer:
    """RecBole's model as it is."""
    return DSLTrainer(case.config, case.model(1.0))


def small_deployed(case: Case) -> Trainer:
    """A narrower dense model of the sparse one's deployed bytes: weights and indices."""
    return _small(case, copies=1)


def small_trained(case: Case) -> Trainer:
    """A narrower dense model of the sparse one's bytes in training: weights, gradients, moments, indices."""
    return _small(case, copies=4)


def fixed_random(case: Case) -> Trainer:
    """A random topology that stays."""
    return DSLTrainer(case.config, case.model(case.config["density"], sparse_init="uniform", topology="fixed"))


def published(case: Case) -> Trainer:
    """Dynamic Sparse Learning with the published recipe (Wang et al. 2024)."""
    steps = max(1, round(PUBLISHED_EPOCHS[case.config["model"]] * len(case.data[0])))
    options = {**PUBLISHED, "update_interval": steps}
    return DSLTrainer(case.config, case.model(case.config["density"], **options))


def pruned_at_once(case: Case) -> Trainer:
    """The largest weights of the trained dense model, fine-tuned with their topology fixed."""
    density = case.config["density"]
    # before the model, whose seed then decides what follows, whether the weights were at hand or not
    weights = case.dense_weights()
    model = case.model(density, sparse_init="magnitude", topology="fixed")
    model.load_state_dict(weights)
    return DSLTrainer(case.config, model)


def pruned_gradually(case: Case) -> Trainer:
    """Dense weights of which more and more are pruned by magnitude while they train, then fine-tuning."""
    density = case.config["density"]
    return GradualPruningTrainer(case.config, case.model(density), len(case.data[0]))


def sparserec(case: Case) -> Trainer:
    """SparseRec (arXiv 2411.12205) as its text gives it: a mask by NMF, gradients summed over an interval."""
    steps = max(1, round(PUBLISHED_EPOCHS[case.config["model"]] * len(case.data[0])))
    options = {**PUBLISHED, "update_interval": steps, "grow_window": steps}
    trainer = DSLTrainer(case.config, case.model(case.config["density"], **options))
    start_from_nmf(trainer, case.data[0]._dataset)
    return trainer


def ours(case: Case) -> Trainer:
    """The defaults of DSLConfig."""
    return DSLTrainer(case.config, case.model(case.config["density"]))


def ours_wide(case: Case) -> Trainer:
    """`ours` with tables twice as wide, as many weights in all, and as much dropout."""
    usual = _uniform(case)
    widths = {name: _times(case.config[name], 2) for name in _table_widths(case.config["model"])}
    weights = usual.nnz + _n_dense(usual) - _n_dense(_uniform(case, **widths))
    options = {"weights": weights, "dropout_factor": _dropout_factor(usual), "sparse_init": None}
    return DSLTrainer(case.config, case.model(case.config["density"], **options))


def _ours_but(constants: Mapping[str, Any], **options: Any) -> Callable[[Case], Trainer]:
    """`ours` with other options, and other constants of `recbole_dsl.initialisation` until it has started."""

    def method(case: Case) -> Trainer:
        trainer = DSLTrainer(case.config, case.model(case.config["density"], **options))
        if constants:
            train_data = case.data[0]
            # it holds the start of the usual constants
            train_data._dataset.config["data_cache"] = False
            with ExitStack() as stack:
                for name, value in constants.items():
                    modules = initialisation.factors, initialisation.held_out
                    module = next(one for one in modules if hasattr(one, name))
                    stack.enter_context(patch.object(module, name, value))
                trainer._start_weights(train_data)
        return trainer

    return method


def small_deployed_svd(case: Case) -> Trainer:
    """`small_deployed` whose tables start from the factorisation that ours start from."""
    return _small(case, copies=1, started=True)


def small_deployed_svd_dropout(case: Case) -> Trainer:
    """`small_deployed_svd` with as much dropout as ours."""
    return _small(case, copies=1, started=True, dropout_factor=_dropout_factor(_uniform(case)))


def _small(case: Case, copies: int, started: bool = False, dropout_factor: float | None = None) -> Trainer:
    """The dense model nearest in bytes to ``copies`` of the sparse weights and one of their indices."""
    wanted = _sparse_bytes(case, copies)
    full = {name: case.config[name] for name in WIDTHS[case.config["model"]]}

    def narrowed(share: float) -> Module:
        widths = {name: _times(width, share) for name, width in full.items()}
        return case.model(1.0, dropout_factor=dropout_factor, **widths)

    def distance(columns: int) -> int:
        return abs(4 * copies * sum(p.numel() for p in narrowed(columns / 64).parameters()) - wanted)

    # each head has as many columns as the others
    step = case.config["n_heads"] or 1
    trainer = DSLTrainer(case.config, narrowed(min(range(step, 65, step), key=distance) / 64))
    for weight in trainer.sparsity.weights.values():
        weight.awaits_data = started
    return trainer


def quotient_remainder(case: Case) -> Trainer:
    """A context-aware model of the sparse one's deployed bytes, its fields hashed (`benchmarks.hashed`)."""
    return _hashed(case, hash_fields)


def deep_hash(case: Case) -> Trainer:
    """A context-aware model of the sparse one's deployed bytes, without tables (`benchmarks.deep_hashing`)."""
    return _hashed(case, hash_deeply)


def _hashed(case: Case, hash_tables: Callable[[Module, int], None]) -> Trainer:
    """The dense model whose tables ``hash_tables`` replaces so that it has the sparse one's deployed bytes."""
    wanted = _sparse_bytes(case, copies=1)
    model = case.model(1.0)
    hash_tables(model, wanted // 4)
    return DSLTrainer(case.config, model)


def recjpq(case: Case) -> Trainer:
    """A sequential model of about the sparse one's deployed bytes, its items coded (`benchmarks.joint_codes`)."""
    wanted = _sparse_bytes(case, copies=1)
    model = case.model(1.0)
    code_items(model, interactions_of(case.data[0]._dataset), wanted)
    return DSLTrainer(case.config, model)


def _trained_for(values: str, method: Callable[[Case], Trainer]) -> Callable[[Case], Trainer]:
    """``method`` with fake quantisation: its model is trained for weights that are written as ``values``."""

    def trained(case: Case) -> Trainer:
        trainer = method(case)
        train_for(trainer, values)
        return trainer

    return trained


def _sparse_bytes(case: Case, copies: int) -> int:
    """The bytes of ``copies`` of the sparse model's weights and one of their indices."""
    sparse = _uniform(case)
    index_bytes = sum(weight.index_bytes for weight in sparse.weights.values())
    return 4 * copies * (sparse.nnz + _n_dense(sparse)) + index_bytes


def _uniform(case: Case, **options: Any) -> SparsityReport:
    """What the sparse model has, quickly made: with a random topology."""
    return DSLTrainer.prepare(case.config, case.model(case.config["density"], sparse_init="uniform", **options))[1]


def _dropout_factor(report: SparsityReport) -> float | None:
    """What dropout is multiplied by, None in a model without any."""
    return next((after / before for before, after in report.dropout.items()), None)


def _n_dense(report: SparsityReport) -> int:
    return sum(count for count, _ in report.dense.values())


def _table_widths(model: str) -> tuple[str, ...]:
    """The options that say how wide the tables of ``model`` are."""
    widths = WIDTHS[model]
    return tuple(name for name in widths if name.endswith("embedding_size")) or widths[:1]


def _times(width: int | list[int], share: float) -> int | list[int]:
    return [_times(w, share) for w in width] if isinstance(width, list) else max(1, round(width * share))


METHODS: dict[str, Callable[[Case], Trainer]] = {
    method.__name__: method
    for method in (
        dense,
        small_deployed,
        small_trained,
        fixed_random,
        published,
        pruned_at_once,
        pruned_gradually,
        sparserec,
        ours,
        ours_wide,
        small_deployed_svd,
        small_deployed_svd_dropout,
        quotient_remainder,
        deep_hash,
        recjpq,
    )
}
_UNUSUAL_METHODS = "ours_wide", "small_deployed_svd_dropout", "quotient_remainder", "deep_hash", "recjpq"
USUAL_METHODS = tuple(name for name in METHODS if name not in _UNUSUAL_METHODS)
# what is compared unless the command says otherwise
METHODS_OF = dict.fromkeys(("FM", "DeepFM", "DCNV2"), ("dense", "small_deployed", "quotient_remainder", "ours"))
# ours with one thing changed
ABLATIONS: dict[str, Callable[[Case], Trainer]] = {
    "ours_uniform": _ours_but({}, sparse_init="uniform"),
    "ours_tables": _ours_but({}, targets="item_embedding.weight"),
    "ours_fixed": _ours_but({}, topology="fixed"),
    "ours_ratio": _ours_but({}, update_ratio=0.5),
    "ours_tenth": _ours_but({}, update_ratio=0.1),
    "ours_window": _ours_but({}, grow_window=1),
    "ours_random_growth": _ours_but({}, grow="random"),
    "ours_unrotated": _ours_but({"_MAX_ROTATIONS": 0}),
    "ours_all_factors": _ours_but({"_SIGNAL": 0.0}),
    "ours_unshrunk": _ours_but({"_SHRINKAGE": 0.0}),
    "ours_damping": _ours_but({"_DAMPINGS": (0.5,)}),
    "ours_unrepeated": _ours_but({"_REPEATED": 0.1}),
}
FOR_INT4 = {
    f"{method.__name__}_int4": _trained_for("int4", method)
    for method in (small_deployed, ours, small_deployed_svd)
}
ALL_METHODS = {**METHODS, **FOR_INT4, **ABLATIONS}
