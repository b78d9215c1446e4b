from pathlib import Path

import pytest
import yaml
from recbole.utils.argument_list import dataset_arguments

from recbole_dsl import DSLConfig, DSLError
from recbole_dsl.config import DEFAULTS, OPTIONS, check_names, describe_options

PROPERTIES = Path(__file__).parent.parent / "properties"


@pytest.mark.parametrize(
    "option, value, allowed",
    [
        ("density", 0, r"in \(0, 1\]"),
        ("density", 1.0001, r"in \(0, 1\]"),
        ("density", "half", r"in \(0, 1\]"),
        ("density", True, r"in \(0, 1\]"),
        ("density", float("nan"), r"in \(0, 1\]"),
        ("update_interval", 0, ">= 1"),
        ("update_interval", 1.5, ">= 1"),
        ("update_ratio", -0.1, r"in \[0, 1\]"),
        ("update_ratio", 1.1, r"in \[0, 1\]"),
        ("stop_fraction", 2, r"in \[0, 1\]"),
        ("prune_threshold", -1, ">= 0"),
        ("grow_window", 0, ">= 1"),
        ("grow_memory", 0, r"in \(0, 1\]"),
        ("seed", -1, ">= 0"),
        ("keep_rows", 1, "True or False"),
        ("targets", 3, "names or patterns"),
        ("exclude", [1], "names or patterns"),
        ("sparse_init", "best", "svd, uniform, erk, magnitude"),
        ("budget", "layer", "uniform, erk, global"),
        ("topology", "static", "dynamic, fixed"),
        ("schedule", "step", "cosine, linear, constant"),
        ("prune", "smallest", "magnitude, set, taylor, threshold"),
        ("grow", ["gradient"], "gradient, momentum, random, random_unfired"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(option, value, allowed):
    with pytest.raises(DSLError, match=allowed) as error:
        DSLConfig(**{option: value})
    message = str(error.value)
    assert message.startswith(f"{option}={value}") and "\n" not in message


def test_erk_initialisation_with_a_uniform_budget_is_refused():
    with pytest.raises(DSLError, match="budget=uniform"):
        DSLConfig(sparse_init="erk", budget="uniform")
    assert DSLConfig(sparse_init="erk").budget == "erk"
    assert DSLConfig().budget == "uniform"


def test_build_ranks_keywords_above_the_source_and_ignores_what_is_not_ours():
    config = DSLConfig.build({"density": 0.5, "learning_rate": 0.1, "prune": "set"}, density=0.25)
    assert (config.density, config.prune) == (0.25, "set")
    assert DSLConfig.build(config.to_dict()) == config
    with pytest.raises(DSLError, match="unknown option denisty: did you mean density"):
        DSLConfig.build(denisty=0.1)


def test_names_come_as_a_list_or_a_string():
    assert DSLConfig(targets="a.weight, b*").targets == DSLConfig(targets=["a.weight", "b*"]).targets


def test_mistyped_names_are_found_and_others_left_alone():
    with pytest.raises(DSLError, match="update_intervall: did you mean update_interval"):
        check_names(["update_intervall"], [])
    check_names(["learning_rate", "density", "my_own_option", "schedules"], ["schedules"])


def test_defaults_file_states_the_defaults():
    assert yaml.safe_load((PROPERTIES / "dsl.yaml").read_text()) == {
        name: list(value) if isinstance(value, tuple) else value for name, value in DEFAULTS.items()
    }


@pytest.mark.parametrize("file", sorted(PROPERTIES.glob("*.yaml")), ids=lambda f: f.name)
def test_every_file_of_properties_holds_valid_options(file):
    options = yaml.safe_load(file.read_text())
    DSLConfig.build(options)
    check_names(options, dataset_arguments)


def test_help_explains_every_option():
    text = describe_options()
    assert all(f"--{name}=" in text for name in OPTIONS)


@pytest.mark.parametrize("name", ["density", "update_ratio", "prune_threshold", "seed", "update_interval"])
def test_integers_beyond_all_floats_are_refused_in_one_line(name):
    with pytest.raises(DSLError, match=f"^{name}=1000.*: must be "):
        DSLConfig(**{name: 10**400})
