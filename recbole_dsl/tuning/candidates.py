"""Checks of every value that a search may draw, before its first trial."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice, product
from math import prod
from typing import Any

from recbole.config import Config

from recbole_dsl.compat.option_places import names_a_place
from recbole_dsl.config import OPTIONS, nearest
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.options.checks import known_options
from recbole_dsl.options.names import own_options
from recbole_dsl.training.configs import stored_config
from recbole_dsl.tuning.parameters import Parameter

# a check takes some hundredths of a second
_CHECKED_AT_MOST = 200

# options that change the data or the metrics, so that trials could not be compared
_OF_THE_COMPARISON = frozenset(
    "model dataset own_options eval_args metrics topk valid_metric metric_decimal_place repeatable load_col "
    "unload_col unused_col additional_feat_suffix rm_dup_inter val_interval filter_inter_by_user_or_item "
    "user_inter_num_interval item_inter_num_interval benchmark_filename threshold USER_ID_FIELD ITEM_ID_FIELD "
    "TIME_FIELD RATING_FIELD LABEL_FIELD field_separator seq_separator encoding data_path data_cache save_last "
    "train_stage show_progress state log_wandb wandb_project worker use_gpu reproducibility".split()
)


def check_trial(config: Config) -> None:
    """Refuse a training without a result on the validation data, by which a search compares.

    Raises:
        DSLError: naming the option.
    """
    stage = config["train_stage"]
    if stage is not None and "pretrain" in str(stage):
        raise refusal("train_stage", stage, "finetune in a search, as a pre-training has no validation result")
    if not 1 <= config["eval_step"] <= config["epochs"]:
        raise refusal(
            "eval_step",
            config["eval_step"],
            f"an integer in [1, epochs] in a search, which compares validation results; epochs={config['epochs']}",
        )


def check_parameters(parameters: Sequence[Parameter], config: Config, options: Mapping[str, Any]) -> None:
    """Refuse names that are no options, and values with which a trial would be refused.

    Every combination of choices is checked; if there are too many, each value, and pairs of values, with the first
    value of the other options. Of an interval, its ends are checked. Only what the model itself refuses is left to
    the trial.

    Args:
        config: of the options that all the trials share.
        options: those options.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    _check_names(parameters, config)
    for values in combinations_to_check(parameters):
        check_trial(stored_config(config.model_class, config["dataset"], {**options, **values}))


def combinations_to_check(parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """All combinations of the candidates, or as many as there is time for, with every candidate in one of them."""
    names = [parameter.name for parameter in parameters]
    candidates = [parameter.candidates() for parameter in parameters]
    if prod(map(len, candidates)) <= _CHECKED_AT_MOST:
        yield from (dict(zip(names, values)) for values in product(*candidates))
        return
    first = {name: values[0] for name, values in zip(names, candidates)}
    for name, values in zip(names, candidates):
        yield from ({**first, name: value} for value in values)
    pairs = (
        {**first, one: value, other: its_value}
        for (one, values), (other, its_values) in combinations(zip(names, candidates), 2)
        for value, its_value in product(values[1:], its_values[1:])
    )
    yield from islice(pairs, _CHECKED_AT_MOST)


def _check_names(parameters: Sequence[Parameter], config: Config) -> None:
    known = {*OPTIONS, *known_options(config), *own_options(config.external_config_dict)}
    for name in (parameter.name for parameter in parameters):
        if names_a_place(name) or name in _OF_THE_COMPARISON:
            raise DSLError(
                f"params_file: {name}: must be the same for every trial; give it on the command line or in a file "
                "of --config_files"
            )
        if name not in known:
            match = nearest(name, known)
            hint = f"did you mean {match}?" if match else f"{config['model']} has none of a name like it"
            raise DSLError(f"params_file: unknown option {name}: {hint}")
