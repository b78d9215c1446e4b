"""The names of options, checked without importing RecBole: a mistyped one is an error at once."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from recbole_dsl.config import OPTIONS, check_names, nearest, unknown_option
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.files import or_shipped
from recbole_dsl.options.rules import NAMES

# how alike a name must be to one of RecBole's to be taken for it; more alike than for our own options, as RecBole
# has many
_ALIKE = 0.85
# an option in a YAML file, and one in RecBole's lists of its general ones
_KEY, _LISTED = re.compile(r"^([\w-]+)\s*:", re.MULTILINE), re.compile(r"'(\w+)'")

# names without a default that RecBole reads, or that RecBole or our command adds
WITHOUT_DEFAULT = set(
    "model dataset config_files config_file config_file_list own_options report resume save_last data_cache "
    "nproc world_size process_timeout group_offset offset ip port local_rank single_spec device verbose encoding "
    "norm feature_num cin has_residual contrast sim use_filter tail_ratio eta token_num_threshold MODEL_TYPE "
    "MODEL_INPUT_TYPE eval_type valid_neg_sample_args test_neg_sample_args MASK_INDEX MASK_ITEM_SEQ POS_ITEMS "
    "NEG_ITEMS INVERSE_ITEM_SEQ CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN REORDER_ITEM_SEQ neg_sampling "
    "training_neg_sample_num fine_tune".split()
)


def check_option_names(given: Mapping[str, Any], known: Collection[str], of_recbole: bool) -> None:
    """Refuse names that look like one of our options mistyped, and with RecBole's models all that nothing reads.

    RecBole takes any name, and ignores those that it does not know.

    Args:
        given: the options that the user wrote. ``own_options`` in it names those of the user's own code.
        known: names of options that RecBole has for this run.
        of_recbole: whether RecBole's code alone reads options: its models, trainers and metrics.

    Raises:
        DSLError: naming the nearest option.
    """
    own = own_options(given)
    known = {*known, *WITHOUT_DEFAULT}
    names = [name for name in given if name not in own and name not in known and name not in OPTIONS]
    try:
        check_names(names, known)
        for name in names:
            if of_recbole and name not in of_any_model():
                if nearest(name, known, _ALIKE):
                    raise unknown_option(name, known, _ALIKE)
                raise DSLError(f"unknown option {name}: nothing reads it")
    except DSLError as error:
        raise DSLError(f"{error} (if it is one of your own code, name it in own_options)") from None


def check_words(
    words: Mapping[str, str], model: str, config_files: Collection[str], settings: Collection[str] = ()
) -> None:
    """`check_option_names` of a command line, before anything is imported that takes seconds.

    What the files of ``config_files`` hold is checked later. So is all if one names ``own_options``, or if RecBole
    is not installed.

    Args:
        settings: options of the command that are none of RecBole's.
    """
    if not _folder() or any("own_options" in _text(or_shipped(file)) for file in config_files):
        return
    unknown = {name: word for name, word in words.items() if name not in of_any_model()}
    for name in unknown:
        if name not in WITHOUT_DEFAULT and name not in OPTIONS and nearest(name, settings):
            raise unknown_option(name, settings)
    if unknown:
        check_option_names(unknown, _of_model(model), of_recbole=True)


def own_options(given: Mapping[str, Any]) -> list[str]:
    """The names of options of the user's own code, which are in ``own_options`` of what was ``given``."""
    own = given.get("own_options") or []
    own = own.replace(",", " ").split() if isinstance(own, str) else list(own) if isinstance(own, tuple) else own
    if not NAMES.takes(own):
        raise refusal("own_options", given["own_options"], "names of options, as a list or separated by commas")
    return own


@cache
def of_any_model() -> frozenset[str]:
    """The names of all the options in RecBole's own files: one file of options may serve several models."""
    return frozenset(name for file in _files() for name in _names_in(file))


def _of_model(model: str) -> set[str]:
    """The names of the options that RecBole has for ``model``; a few more, as its type is not known here."""
    return {
        name
        for file in _files()
        if os.path.basename(os.path.dirname(file)) != "model" or os.path.basename(file) == f"{model}.yaml"
        for name in _names_in(file)
    }


def _files() -> Iterator[str]:
    yield os.path.join(_folder(), "utils", "argument_list.py")
    for parent, _, files in os.walk(os.path.join(_folder(), "properties")):
        yield from (
            os.path.join(parent, file)
            for file in files
            if file.endswith(".yaml") and not file.endswith("url.yaml")
        )


def _names_in(file: str) -> list[str]:
    return (_KEY if file.endswith(".yaml") else _LISTED).findall(_text(file))


def _folder() -> str:
    """The folder of RecBole, which is not imported for this; "" if it is not installed."""
    spec = find_spec("recbole")
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else ""


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except OSError:
        # the error comes when its options are read
        return ""
