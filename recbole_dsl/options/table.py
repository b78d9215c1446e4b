"""What each of RecBole's options may be."""

from recbole.evaluator import metric_types

from recbole_dsl.options.rules import (
    ENCODING,
    FLAG,
    GPU_IDS,
    INTERVAL,
    NAME,
    NAMES,
    TEXT,
    TRUE_OR_FALSE,
    Rule,
    dict_of,
    integer,
    list_of,
    number,
    one_of,
    optional,
)

COLUMNS_BY_FILE = Rule(
    "a dict of file suffixes and lists of column names, such as {'inter': ['user_id', 'item_id']}",
    lambda v: isinstance(v, dict) and all(NAME.takes(k) and (c == "*" or NAMES.takes(c)) for k, c in v.items()),
)
_RATIOS = Rule(
    "a list of 3 numbers >= 0, the first above 0",
    lambda v: isinstance(v, list) and len(v) == 3 and all(map(number(0).takes, v)) and v[0] > 0,
)
# the limit of what may exceed the data, such as a batch size
_ANY = 2**63 - 1
_SUFFIX = Rule(
    "the suffix of a file other than inter, user and item",
    lambda v: NAME.takes(v) and v not in ("inter", "user", "item"),
)
_SPLITS = {"RS": _RATIOS, "LS": one_of("valid_and_test", "valid_only", "test_only"), "TS": _RATIOS}
_MODE = Rule(
    "full, labeled, or uniN or popN with N >= 1 negative items, such as uni100",
    lambda v: v in ("full", "labeled") or (v[:3] in ("uni", "pop") and int(v[3:]) >= 1),
)
_MODES = Rule(
    f"{_MODE.allowed}; or such for each of valid and test",
    lambda v: (
        (isinstance(v, dict) and v and set(v) <= {"valid", "test"} and all(map(_MODE.takes, v.values())))
        or _MODE.takes(v)
    ),
)
_PARTS_OF_EVAL_ARGS = {
    "split": Rule(
        "one of {'RS': [0.8, 0.1, 0.1]}, {'LS': 'valid_and_test'} and {'TS': [0.8, 0.1, 0.1]}, with "
        "3 numbers >= 0, the first above 0, or valid_and_test, valid_only or test_only",
        lambda v: isinstance(v, dict) and len(v) == 1 and all(_SPLITS[k].takes(part) for k, part in v.items()),
    ),
    "order": Rule("RO (at random) or TO (by time)", lambda v: v in ("RO", "TO")),
    "group_by": Rule("user or none", lambda v: v is None or v == "user" or str(v).lower() == "none"),
    "mode": _MODES,
}
# no negative items, as users and RecBole write it
NO_NEGATIVES = Rule("none", lambda v: v is None or v in ("None", "none"))
_PARTS_OF_NEGATIVES = {
    "distribution": Rule("uniform, popularity or None", lambda v: v in ("uniform", "popularity")) | NO_NEGATIVES,
    "sample_num": integer(1) | NO_NEGATIVES,
    "alpha": number(0) | NO_NEGATIVES,
    "dynamic": FLAG,
    "candidate_num": integer(0),
}
_PARTS_OF_CLIPPING = {
    "max_norm": number(0, finite=False),
    "norm_type": number(0, above=True, finite=False),
    "error_if_nonfinite": FLAG,
    "foreach": FLAG,
}
# options that are dicts: name -> (the rules of their parts, the rule of what may be given instead)
DICTS = {
    "eval_args": (_PARTS_OF_EVAL_ARGS, None),
    "train_neg_sample_args": (_PARTS_OF_NEGATIVES, NO_NEGATIVES),
    "clip_grad_norm": (_PARTS_OF_CLIPPING, Rule("none", lambda v: v is None or v is False)),
}

# what RecBole derives from other options or the model, whatever is given
DERIVED = {
    "device": "left out: RecBole takes the GPU of gpu_id, or the CPU with gpu_id=''",
    "MODEL_TYPE": "left out: the model says it",
    "MODEL_INPUT_TYPE": "left out: the model or its loss_type says it",
    "eval_type": "left out: the metrics say it",
}

RULES = {
    # the process and its files
    "gpu_id": GPU_IDS,
    "worker": integer(0),
    "seed": integer(0, 2**32 - 1),
    "state": optional(one_of("debug", "info", "warning", "error", "critical", any_case=True)),
    "data_path": NAME,
    "checkpoint_dir": NAME,
    "dataset_save_path": optional(TEXT),
    "dataloaders_save_path": optional(TEXT),
    "wandb_project": optional(NAME),
    "encoding": optional(ENCODING),
    **dict.fromkeys(
        "use_gpu reproducibility show_progress save_dataset save_dataloaders log_wandb shuffle require_pow "
        "enable_amp enable_scaler repeatable kg_reverse_r".split(),
        FLAG,
    ),
    # training
    "epochs": integer(0, _ANY),
    "train_batch_size": integer(1, _ANY),
    "learner": one_of("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam", any_case=True),
    "learning_rate": number(0),
    "weight_decay": number(0),
    "eval_step": integer(-(2**31)),
    "stopping_step": number(0, finite=False),
    "loss_decimal_place": optional(integer(0, 100)),
    "transform": optional(
        one_of("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")
    ),
    # evaluation
    "eval_batch_size": integer(1, _ANY),
    "metric_decimal_place": integer(0, 100),
    "topk": integer(1) | list_of(integer(1), "such numbers, each once, that is not empty", some=True, once=True),
    # data
    "field_separator": TEXT,
    "seq_separator": TEXT,
    "USER_ID_FIELD": optional(NAME),
    "ITEM_ID_FIELD": optional(NAME),
    "TIME_FIELD": optional(NAME),
    "RATING_FIELD": optional(NAME),
    **dict.fromkeys(
        "LABEL_FIELD NEG_PREFIX ITEM_LIST_LENGTH_FIELD LIST_SUFFIX POSITION_FIELD HEAD_ENTITY_ID_FIELD "
        "TAIL_ENTITY_ID_FIELD RELATION_ID_FIELD ENTITY_ID_FIELD".split(),
        NAME,
    ),
    "MAX_ITEM_LIST_LENGTH": integer(1),
    "load_col": optional(COLUMNS_BY_FILE),
    "unload_col": optional(COLUMNS_BY_FILE),
    "unused_col": optional(COLUMNS_BY_FILE),
    "additional_feat_suffix": optional(_SUFFIX | list_of(_SUFFIX, "such suffixes")),
    "benchmark_filename": optional(list_of(NAME, "names, of the training, validation and test part", length=3)),
    "rm_dup_inter": optional(one_of("first", "last")),
    "filter_inter_by_user_or_item": TRUE_OR_FALSE,
    "val_interval": optional(
        dict_of(
            NAME,
            INTERVAL | list_of(Rule("values", lambda v: True), "tokens"),
            "a dict of columns and intervals such as '[3,5]', or lists of tokens",
        )
    ),
    **dict.fromkeys(
        "user_inter_num_interval item_inter_num_interval entity_kg_num_interval relation_kg_num_interval".split(),
        optional(INTERVAL),
    ),
    "seq_len": optional(dict_of(NAME, integer(1), "a dict of columns and lengths >= 1")),
    "threshold": Rule(
        "a dict of one column and a number, such as {'rating': 4}, or None",
        lambda v: (
            v is None
            or (
                isinstance(v, dict)
                and len(v) == 1
                and all(NAME.takes(k) and number().takes(least) for k, least in v.items())
            )
        ),
    ),
    "numerical_features": list_of(NAME, "column names"),
    **dict.fromkeys(
        "alias_of_user_id alias_of_item_id alias_of_entity_id alias_of_relation_id".split(), optional(NAMES)
    ),
    "preload_weight": optional(dict_of(NAME, NAME, "a dict of a column of ids and one of vectors")),
    "normalize_field": optional(NAMES),
    "normalize_all": TRUE_OR_FALSE,
    # ours, about the run
    "save_last": TRUE_OR_FALSE,
    "data_cache": TRUE_OR_FALSE | NAME,
    "process_timeout": number(1, 10**6),
    "discretization": optional(
        dict_of(
            NAME,
            Rule("a method", lambda v: v["method"] == "LD" or (v["method"] == "ED" and v["bucket"] >= 1)),
            "a dict of columns and {'method': 'LD'} or {'method': 'ED', 'bucket': N}",
        )
    ),
}


def rule_of(name: str) -> Rule | None:
    """The rule for RecBole's option ``name``, with the metrics that are registered now; None if there is none."""
    if name != "metrics":
        return RULES.get(name)
    # a program may add metrics at any time
    metric = one_of(*metric_types, any_case=True)
    return metric | list_of(metric, "such names, each once, that is not empty", tuples=True, some=True, once=True)
