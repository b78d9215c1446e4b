"""How many optimizer steps a trainer of RecBole takes."""

from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.trainer import KGATTrainer, KGTrainer, MKRTrainer, RecVAETrainer, Trainer
from recbole.trainer.trainer import PretrainTrainer
from recbole.utils import KGDataLoaderState


def total_steps(trainer: Trainer, train_data: AbstractDataLoader) -> int:
    """Optimizer steps of a whole training without an early stop; the topology's schedule spans them.

    Trainers that alternate between recommendation and a knowledge graph, or between two networks, take the steps
    of both. A pre-training counts its own epochs.
    """
    return sum(_steps_of_epoch(trainer, train_data, epoch) for epoch in range(epochs_of(trainer)))


def epochs_of(trainer: Trainer) -> int:
    """Epochs of a whole training without an early stop."""
    return trainer.pretrain_epochs if is_pretraining(trainer) else trainer.epochs


def steps_to_come(trainer: Trainer, train_data: AbstractDataLoader, epoch: int) -> int:
    """`total_steps`, corrected by the steps that the epochs before ``epoch`` took.

    A trainer that accumulates gradients takes fewer steps than there are batches.
    """
    total = total_steps(trainer, train_data)
    expected = sum(_steps_of_epoch(trainer, train_data, before) for before in range(epoch))
    taken = trainer.topology.step
    return max(1, round(total * taken / expected)) if expected and taken else total


def is_pretraining(trainer: Trainer) -> bool:
    """Whether ``trainer`` is in a stage that trains for a later one and keeps no best model (S3Rec, RaCT)."""
    return isinstance(trainer, PretrainTrainer) and trainer.model.train_stage.endswith("pretrain")


def _steps_of_epoch(trainer: Trainer, train_data: AbstractDataLoader, epoch: int) -> int:
    if isinstance(trainer, RecVAETrainer):
        return len(train_data) * (trainer.n_enc_epochs + trainer.n_dec_epochs)
    if not isinstance(trainer, (KGTrainer, KGATTrainer, MKRTrainer)):
        return len(train_data)
    interactions, triples = (_length(train_data, s) for s in (KGDataLoaderState.RS, KGDataLoaderState.KG))
    if isinstance(trainer, KGATTrainer):
        return interactions + triples
    if isinstance(trainer, MKRTrainer):
        return interactions + (0 if epoch % trainer.kge_interval else triples)
    if trainer.train_rec_step is None or trainer.train_kg_step is None:
        return interactions
    phase = epoch % (trainer.train_rec_step + trainer.train_kg_step)
    return interactions if phase < trainer.train_rec_step else triples


def _length(train_data: AbstractDataLoader, state: KGDataLoaderState) -> int:
    before = train_data.state
    try:
        train_data.state = state
        return len(train_data)
    finally:
        train_data.state = before
