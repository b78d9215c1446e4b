"""A training does not load PyTorch's compiler, and optimizers may be compiled all the same."""

import subprocess
import sys

import pytest
import torch

from recbole_dsl.optim.uncompiled import leave_out_compiler

_TRAINING = """
import sys
from recbole_dsl import run_recbole_dsl

run_recbole_dsl("BPR", "ml-100k", config_dict={"epochs": 1, "density": 0.1, "use_gpu": False, "data_cache": False})
assert "torch._dynamo" not in sys.modules
"""


def test_a_training_does_not_load_the_compiler(tmp_path):
    done = subprocess.run([sys.executable, "-c", _TRAINING], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_a_step_is_the_same_plain_and_compiled(kind):
    leave_out_compiler()
    gradient = torch.tensor([1.0, -2.0, 0.5])
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    steps = [kind([weight], lr=0.1).step for weight in weights]
    for weight, step in zip(weights, [steps[0], torch.compile(steps[1], backend="eager")]):
        weight.grad = gradient.clone()
        step()
        assert torch.is_grad_enabled()
    torch.testing.assert_close(*weights)
    assert not torch.equal(weights[0], torch.ones(3))
