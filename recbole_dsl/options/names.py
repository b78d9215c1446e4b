"""Which names of options are mistyped: RecBole takes any, and ignores those that it does not know."""

import os
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import recbole
import yaml

from recbole_dsl.config import OPTIONS, check_names, nearest, unknown_option
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.options.rules import NAMES

# names that RecBole reads and has no default for, or that the command, or RecBole itself, adds
_WITHOUT_DEFAULT = set(
    "model dataset config_files config_file config_file_list own_options report resume save_last nproc world_size "
    "process_timeout data_cache "
    "group_offset offset ip port local_rank single_spec device verbose encoding norm feature_num cin "
    "has_residual contrast sim use_filter tail_ratio eta token_num_threshold "
    "MODEL_TYPE MODEL_INPUT_TYPE eval_type "
    "valid_neg_sample_args test_neg_sample_args MASK_INDEX MASK_ITEM_SEQ POS_ITEMS NEG_ITEMS INVERSE_ITEM_SEQ "
    "CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN REORDER_ITEM_SEQ neg_sampling training_neg_sample_num fine_tune".split()
)
# how alike a name must be to one of RecBole's to be taken for it; fewer letters apart than for our own options,
# as there are many of them
_ALIKE = 0.85


def check_option_names(given: Mapping[str, Any], known: Collection[str], of_recbole: bool) -> None:
    """Refuse names that look like one of our options mistyped, and with RecBole's models all that nothing reads.

    Args:
        given: the options that the user wrote. ``own_options`` in it names those of the user's own code.
        known: names of options that RecBole has for this run.
        of_recbole: whether RecBole's code alone reads options: its models, trainers and metrics.

    Raises:
        DSLError: naming the nearest option.
    """
    own = given.get("own_options") or []
    own = own.replace(",", " ").split() if isinstance(own, str) else list(own) if isinstance(own, tuple) else own
    if not NAMES.takes(own):
        raise refusal("own_options", given["own_options"], "names of options, as a list or separated by commas")
    known = {*known, *_WITHOUT_DEFAULT}
    names = [name for name in given if name not in own and name not in known and name not in OPTIONS]
    try:
        check_names(names, known)
        for name in names:
            if of_recbole and name not in _of_any_model():
                if nearest(name, known, _ALIKE):
                    raise unknown_option(name, known, _ALIKE)
                raise DSLError(f"unknown option {name}: nothing reads it")
    except DSLError as error:
        raise DSLError(f"{error} (if it is one of your own code, name it in own_options)") from None


@cache
def _of_any_model() -> frozenset[str]:
    """The names of all the options in RecBole's own files: one file of options may serve several models."""
    folder = os.path.join(os.path.dirname(recbole.__file__), "properties")
    names = set()
    for parent, _, files in os.walk(folder):
        for file in files:
            if file.endswith(".yaml") and not file.endswith("url.yaml"):
                with open(os.path.join(parent, file), encoding="utf-8") as opened:
                    names |= set(yaml.safe_load(opened) or ())
    return frozenset(names)
