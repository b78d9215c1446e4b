"""Datasets and their parts from the cache, if they have been made before."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any
from weakref import WeakKeyDictionary

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset

from recbole_dsl.data.cache import Cache, NotKept, cache_of, digest_of, group_of
from recbole_dsl.data.checks import atomic_files
from recbole_dsl.data.fast_dataset import fast_class
from recbole_dsl.data.kept_state import kept, restored
from recbole_dsl.data.sampling import Pairs
from recbole_dsl.patching import changes

# smaller atomic files, in bytes, are read so fast that a cache is not worth it
_WORTH = 2**20
# attributes that belong to a run and not to its data; options that do not change the data
_OF_A_RUN = "config", "logger"
_UNREAD = {"show_progress", "local_rank"}
# options on which the checks of lines depend
_OF_LINES = (
    "field_separator seq_separator encoding USER_ID_FIELD ITEM_ID_FIELD HEAD_ENTITY_ID_FIELD TAIL_ENTITY_ID_FIELD "
    "RELATION_ID_FIELD ENTITY_ID_FIELD"
).split()
# keys of the datasets that are in the cache
_keys: "WeakKeyDictionary[Dataset, str]" = WeakKeyDictionary()


def kept_dataset(config: Config, kind: type[Dataset], make: Callable[[], Dataset]) -> Dataset:
    """The dataset of ``kind`` that ``make`` creates from the files of ``config``, or the same from the cache.

    The key is the content of every file, the class, and each option that was read while the dataset was created.
    RecBole's warnings of that time are repeated.
    """
    cache = cache_of(config)
    paths = [file.path for file, _ in atomic_files(config)]
    if cache is None or not _is_recboles(kind) or sum(map(os.path.getsize, paths)) < _WORTH:
        return make()
    contents = [(os.path.basename(path), digest_of(path)) for path in paths]
    group = group_of("dataset", kind.__qualname__, contents)
    found = cache.read(group, config=config)
    if found is not None:
        dataset = fast_class(kind).__new__(fast_class(kind))
        vars(dataset).update(restored(found["state"]), config=config, logger=getLogger())
        getLogger().debug("data_cache: the data is taken from it.")
        for level, text in found["warnings"]:
            getLogger().log(level, text)
        _remember(dataset, group, found["options"])
        return dataset
    with _noted_options(config) as options, _noted_warnings() as warnings:
        dataset = make()
        for name in _OF_LINES:
            config[name]
    if any(" object at 0x" in text for text in options.values()):
        return dataset
    if _keep(cache, group, options, lambda: {**_state(dataset), "warnings": warnings, "options": options}):
        _remember(dataset, group, options)
    return dataset


def _remember(dataset: Dataset, group: str, options: dict[str, str]) -> None:
    # other classes may create more than plain data when they split
    if type(dataset) in map(fast_class, (Dataset, SequentialDataset)):
        _keys[dataset] = group_of(group, sorted(options.items()))


def kept_parts(config: Config, dataset: Dataset) -> tuple[list[Dataset], Pairs | None]:
    """The three parts of ``dataset.build()`` and their pairs of users and items, perhaps from the cache.

    The key is that of the dataset, with each option that was read and the state of PyTorch's generator. That state
    is afterwards as if the data had just been shuffled. There are no pairs if no negative items are drawn, or if
    the data is repeatable.
    """

    def made() -> tuple[list[Dataset], Pairs | None]:
        built = dataset.build()
        options = [config[f"{phase}_neg_sample_args"] for phase in ("train", "valid", "test")]
        draws = any(one["distribution"] != "none" for one in options) and not config["repeatable"]
        return built, Pairs.of(built) if draws else None

    cache = cache_of(config)
    if cache is None or dataset not in _keys:
        return made()
    group = group_of("parts", _keys[dataset], hashlib.sha256(torch.get_rng_state().numpy()).hexdigest())
    found = cache.read(group, config=config)
    if found is not None:
        vars(dataset).update(restored(found["state"]))
        torch.set_rng_state(torch.from_numpy(found["random"]))
        pairs = found["pairs"] and Pairs.from_arrays(found["pairs"], dataset.user_num, dataset.item_num)
        return [dataset.copy(restored(part)) for part in found["parts"]], pairs
    with _noted_options(config) as options:
        built, pairs = made()

    def value() -> dict[str, Any]:
        parts = {"parts": [kept(part.inter_feat) for part in built], "pairs": pairs and list(pairs.arrays)}
        return {**_state(dataset), **parts, "random": torch.get_rng_state().numpy()}

    _keep(cache, group, options, value)
    return built, pairs


def _state(dataset: Dataset) -> dict[str, Any]:
    return {"state": kept({name: one for name, one in vars(dataset).items() if name not in _OF_A_RUN})}


def _keep(cache: Cache, group: str, options: dict[str, str], value: Callable[[], Any]) -> bool:
    """Write what ``value`` gives to ``cache``; False, and a line in the log, if it is nothing that can be kept."""
    try:
        found = value()
    except NotKept as error:
        getLogger().debug(f"data_cache: not kept: {error}")
        return False
    cache.write(group, options, found)
    return True


def _is_recboles(kind: type[Dataset]) -> bool:
    """Whether the class and all its methods are RecBole's, or those with which ``compat`` replaces them."""
    return all(
        getattr(value, "__module__", "recbole").startswith("recbole")
        for base in kind.__mro__
        if issubclass(base, Dataset)
        for value in (base, *vars(base).values())
        if callable(value)
    )


@contextmanager
def _noted_options(config: Config) -> Iterator[dict[str, str]]:
    """Within it, each option that is read from ``config`` goes into the dict, with its value at the first read."""
    kind, read = type(config), dict[str, str]()

    def note(self: Config, name: str) -> None:
        if name not in _UNREAD:
            read.setdefault(name, repr(self.final_config_dict.get(name)))

    def noting(usual: Callable) -> Callable:
        def method(self: Config, name: str) -> Any:
            note(self, name)
            return usual(self, name)

        return method

    methods = {name: noting(getattr(kind, name)) for name in ("__getitem__", "__contains__")}
    config.__class__ = type(kind.__name__, (kind,), methods)
    try:
        yield read
    finally:
        config.__class__ = kind


@changes("the root logger's handlers", "what RecBole warns of while it reads is said again by the cache")
@contextmanager
def _noted_warnings() -> Iterator[list]:
    found: list = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append([record.levelno, record.getMessage()])
    getLogger().addHandler(handler)
    try:
        yield found
    finally:
        getLogger().removeHandler(handler)
