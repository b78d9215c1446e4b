"""Parameter files as RecBole has them, of which nothing is evaluated."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbole.trainer import HyperTuning

from recbole_dsl import DSLError
from recbole_dsl.tuning.parameters import Parameter, read_parameters


def read(text):
    with open("p.hyper", "w", encoding="utf-8") as file:
        file.write(text)
    return read_parameters("p.hyper")


def test_the_values_are_those_that_recbole_would_train_with():
    # as in RecBole's own files
    found = read(
        "learning_rate choice [0.01,0.005, 1e-3]\n"
        "\n"
        "# a comment of more than two words\n"
        "mlp_hidden_size choice ['[64,32]','[16]']\n"
        "targets\tchoice\t[None, ['user_embedding'], 'None']\r\n"
        "grow choice ['gradient', \"random\"]\n"
        "keep_rows choice ['True', False]\n"
        "dropout_prob uniform 0.0,0.5\n"
        "weight_decay loguniform -8, 0\n"
        "embedding_size quniform 16,64,16\n"
    )
    assert [(one.name, one.kind, one.values) for one in found] == [
        ("learning_rate", "choice", (0.01, 0.005, 0.001)),
        ("mlp_hidden_size", "choice", ([64, 32], [16])),
        ("targets", "choice", (None, ["user_embedding"])),
        ("grow", "choice", ("gradient", "random")),
        ("keep_rows", "choice", (True, False)),
        ("dropout_prob", "uniform", (0.0, 0.5)),
        ("weight_decay", "loguniform", (-8.0, 0.0)),
        ("embedding_size", "quniform", (16.0, 64.0, 16.0)),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "learning_rate choice [__import__('os').system('touch evil')]",
        "learning_rate choice __import__('os').listdir()",
        "learning_rate choice [open('evil', 'w')]",
        "learning_rate choice [0.1 for _ in range(10**9)]",
        "learning_rate choice [10**10**10]",
        "learning_rate choice " + "[" * 5000,
        "learning_rate choice [" + "9" * 5000 + "]",
        "learning_rate choice [1e400-1e400]",
        "learning_rate choice [b'x']",
        "learning_rate choice [{1, 2}]",
        "learning_rate choice [{1: 2}]",
        "learning_rate choice [1j]",
        "learning_rate choice []",
        "learning_rate choice 0.1",
        "learning_rate choice {'a': 1}",
        "learning_rate choice [0.1\0]",
        "learning_rate choice",
        "learning_rate",
        "learning_rate choise [0.1]",
        "learning_rate uniform 0.1",
        "learning_rate uniform 0.1,0.2,0.3",
        "learning_rate uniform 0.2,0.1",
        "learning_rate uniform nan,1",
        "learning_rate uniform 0,inf",
        "learning_rate uniform -1e308,1e308",
        "learning_rate uniform open('evil','w'),1",
        "learning_rate loguniform 0,800",
        "learning_rate quniform 0,1,0",
        "learning_rate quniform 0,1e300,1e-300",
        "learning_rate quniform 0,1",
    ],
)
def test_what_is_no_data_is_refused_in_one_line(line, tmp_path):
    with pytest.raises(DSLError, match=r"^params_file=p.hyper, line 2: .*must be ") as error:
        read(f"embedding_size choice [8]\n{line}\n")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert [file.name for file in tmp_path.iterdir()] == ["p.hyper"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "must have a line"),
        (b"# nothing\n", "must have a line"),
        (b"a choice [1]\na choice [2]\n", "line 2: .*the only line of a"),
        (b"\xff\xfe", "must be text in UTF-8, and byte 1 is not"),
        (b"# " + b"x" * 2**20, "at most 1,048,576 bytes"),
    ],
)
def test_files_that_are_none(content, message, tmp_path):
    (tmp_path / "p.hyper").write_bytes(content)
    with pytest.raises(DSLError, match=message):
        read_parameters("p.hyper")
    with pytest.raises(DSLError, match="must be an existing file"):
        read_parameters(str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        assert all(isinstance(one, Parameter) for one in read(f"learning_rate choice {text}"))
    except DSLError as error:
        assert "\n" not in str(error)
    except UnicodeEncodeError:
        pass


INTERVALS = [
    Parameter("x", "uniform", (0.1, 0.7)),
    Parameter("x", "loguniform", (-8.0, 0.0)),
    Parameter("x", "quniform", (1.0, 10.0, 4.0)),
    Parameter("x", "quniform", (0.0, 1.0, 0.25)),
    Parameter("x", "choice", (None, [1, 2], "a")),
]


@pytest.mark.parametrize("parameter", INTERVALS, ids=lambda one: f"{one.kind}{one.values}")
def test_nothing_is_drawn_beyond_the_candidates_that_are_checked(parameter):
    random = np.random.default_rng(0)
    drawn = [parameter.draw(random) for _ in range(300)]
    candidates = parameter.candidates()
    if parameter.is_choice:
        assert all(value in candidates for value in drawn)
        return
    assert min(candidates) <= min(drawn) and max(drawn) <= max(candidates)
    # nor by RecBole, whose rounding may lead beyond the ends of the file
    hyperopt = pytest.importorskip("hyperopt.pyll.stochastic")
    space = HyperTuning._build_space_from_dict({parameter.kind: {"x": parameter.values}})
    theirs = [parameter.value(float(hyperopt.sample(space, random)["x"])) for _ in range(50)]
    assert min(candidates) <= min(theirs) and max(theirs) <= max(candidates)
    assert {type(value) for value in [*drawn, *theirs]} == {type(candidates[0])}
