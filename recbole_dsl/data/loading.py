"""The data of a run from its atomic files; only pickles that the user's options name are read."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import recbole.data.dataset as datasets
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.data.utils import save_split_dataloaders
from recbole.utils import ModelType

import recbole_dsl.data.batches
import recbole_dsl.data.negatives
import recbole_dsl.data.sequences  # noqa: F401
from recbole_dsl.data.checks import check_lines, check_loaded, explained
from recbole_dsl.data.fast_dataset import fast_class
from recbole_dsl.data.kept_dataset import kept_dataset
from recbole_dsl.data.loaders import data_preparation
from recbole_dsl.data.pretrained import pretrained_rows
from recbole_dsl.data.rows import FileRows
from recbole_dsl.data.trained_on import warn_of_other_interactions
from recbole_dsl.distributed.agreement import is_parallel
from recbole_dsl.errors import DSLError
from recbole_dsl.files import output_file

_KINDS = {
    ModelType.GENERAL: "Dataset",
    ModelType.CONTEXT: "Dataset",
    ModelType.SEQUENTIAL: "SequentialDataset",
    ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
}


@dataclass(frozen=True)
class RunData:
    """RecBole's dataset and the loaders of its three parts."""

    dataset: Dataset
    train: AbstractDataLoader
    valid: AbstractDataLoader
    test: AbstractDataLoader


def load_data(config: Config, may_download: bool = True, file: FileRows | None = None) -> RunData:
    """The dataset of ``config`` and its loaders.

    The data gets the ids of ``file``, whose weights are to be used, and a warning tells if that was trained on
    other interactions. Without ``file``, it gets the ids of the first pretrained file that the options name.

    RecBole unpickles any ``<dataset>-Dataset.pth`` and ``<dataset>-for-<model>-dataloader.pth`` in
    ``checkpoint_dir``, which runs the code in them. Here only the files of ``dataset_save_path`` and
    ``dataloaders_save_path`` are read. ``save_dataset`` and ``save_dataloaders`` write as in RecBole.

    Raises:
        DSLError: if the data is missing, cannot be downloaded, read, split or saved, or has tokens that ``file``
            does not know.
    """
    with _no_default_pickles(config):
        dataset = load_dataset(config, may_download, file)
    if config["save_dataset"]:
        name = f"{config['dataset']}-{type(dataset).__name__}.pth"
        with _named_problem(config, "save_dataset"):
            _refuse_other(config, name, "save_dataset")
            dataset.save()
    with _no_default_pickles(config), explained(config):
        train, valid, test = data_preparation(config, dataset)
    if file is not None:
        # data from dataset_save_path or dataloaders_save_path keeps its own ids
        file.require(train._dataset)
        others = {"validation": valid._dataset, "test": test._dataset}
        warn_of_other_interactions(file, train._dataset, others)
    if config["save_dataloaders"]:
        name = f"{config['dataset']}-for-{config['model']}-dataloader.pth"
        with _named_problem(config, "save_dataloaders"):
            _refuse_other(config, name, "save_dataloaders")
            _save_loaders(config, (train, valid, test))
    return RunData(dataset, train, valid, test)


def load_dataset(config: Config, may_download: bool = True, file: FileRows | None = None) -> Dataset:
    """RecBole's dataset, downloaded if it is missing and RecBole knows its address; ``file`` as in `load_data`.

    Raises:
        DSLError: if it cannot be read, naming the file, the line and the column if they are known; or if it cannot
            be downloaded, which leaves nothing behind.
    """
    path = config["data_path"]
    if os.path.isdir(path):
        with explained(config):
            dataset = _made(config, file)
            check_loaded(config, dataset)
        return dataset
    if not may_download:
        raise DSLError(f"dataset={config['dataset']}: must be a folder of atomic files at {path}")
    try:
        if is_parallel(config):
            return create_dataset(config)
        _download(config, path)
    except (OSError, ValueError, SystemExit, RuntimeError, EOFError) as error:
        raise DSLError(f"dataset={config['dataset']}: not in {path} and not to be downloaded") from error
    return load_dataset(config, file=file)


def _download(config: Config, path: str) -> None:
    """Let RecBole download the dataset of ``config`` to ``path``, where it appears when it is complete."""
    parent = os.path.dirname(os.path.abspath(path))
    existing = parent
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    with tempfile.TemporaryDirectory(prefix=".recbole-dsl-", dir=existing) as place:
        config["data_path"] = os.path.join(place, config["dataset"])
        try:
            create_dataset(config)
        except ValueError:
            # after a download RecBole waits for other processes, and fails if there are none
            if not os.path.isfile(os.path.join(config["data_path"], f"{config['dataset']}.inter")):
                raise
        os.makedirs(parent, exist_ok=True)
        os.rename(config["data_path"], path)
        config["data_path"] = path


def dataset_class(config: Config) -> type[Dataset]:
    """The class of dataset that RecBole's ``create_dataset`` chooses."""
    return getattr(datasets, f"{config['model']}Dataset", None) or getattr(datasets, _KINDS[config["MODEL_TYPE"]])


def _made(config: Config, file: FileRows | None) -> Dataset:
    """The dataset of the files in ``data_path``, with ids as in `load_data`."""
    if config["dataset_save_path"]:
        return create_dataset(config)
    started_from = [] if file is not None else pretrained_rows(config)
    kind = dataset_class(config)
    if file is None and not started_from:
        return kept_dataset(config, kind, lambda: _checked(config, fast_class(kind)))
    if file is not None:
        return _checked(config, fast_class(kind), file.give_ids)
    return _checked(config, fast_class(kind), partial(_give_ids_of_first, started_from))


def _checked(config: Config, kind: type[Dataset], give_ids: Callable[[Dataset], None] | None = None) -> Dataset:
    """A dataset whose lines have been checked; ``give_ids``, if given, replaces the ids that RecBole assigns."""
    check_lines(config)
    dataset = kind.__new__(kind)
    if give_ids is not None:

        def remap() -> None:
            kind._remap_ID_all(dataset)
            give_ids(dataset)

        # RecBole calls it when tokens have become ids, before it uses them
        dataset._remap_ID_all = remap
    dataset.__init__(config)
    vars(dataset).pop("_remap_ID_all", None)
    return dataset


def _give_ids_of_first(files: Sequence[FileRows], dataset: Dataset) -> None:
    for file in files:
        # a file that does not fit is refused if the model reads it
        with suppress(DSLError):
            file.give_ids(dataset)
            return


@contextmanager
def _no_default_pickles(config: Config) -> Iterator[None]:
    """Within it, ``checkpoint_dir`` is a folder that does not exist, and nothing is saved."""
    nowhere = os.path.join(tempfile.gettempdir(), secrets.token_hex(16))
    others = {"checkpoint_dir": nowhere, "save_dataset": False, "save_dataloaders": False}
    usual = {name: config[name] for name in others}
    for name, value in others.items():
        config[name] = value
    try:
        yield
    finally:
        for name, value in usual.items():
            config[name] = value


def _refuse_other(config: Config, name: str, option: str) -> None:
    """Raise a DSLError if saving as ``name`` would replace a file of another kind."""
    file = os.path.join(config["checkpoint_dir"], name)
    output_file(file, option, "one that RecBole has saved", _is_pickle)


def _is_pickle(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


@contextmanager
def _named_problem(config: Config, option: str) -> Iterator[None]:
    try:
        yield
    except DSLError:
        raise
    except Exception as error:
        # pickling may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DSLError(
            f"{option}={config[option]}: cannot be saved in {config['checkpoint_dir']}: {reason}"
        ) from error


def _save_loaders(config: Config, loaders: tuple[AbstractDataLoader, ...]) -> None:
    # RecBole takes their generators away to save them, and does not give them back
    generators: list[tuple[Any, Any]] = [
        (owner, owner.generator)
        for loader in loaders
        for owner in (loader, loader.sampler)
        if hasattr(owner, "generator")
    ]
    try:
        save_split_dataloaders(config, loaders)
    finally:
        for owner, generator in generators:
            owner.generator = generator
