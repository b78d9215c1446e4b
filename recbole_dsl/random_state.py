"""Every random state that a training run draws from, as tensors and plain data."""

import random
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import torch


def random_state(loader_generator: Optional[torch.Generator] = None) -> dict[str, Any]:
    """The state of Python's, NumPy's and PyTorch's generators and of the one that shuffles the training data."""
    kind, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loader": None if loader_generator is None else loader_generator.get_state(),
    }


def restore_random_state(state: Mapping[str, Any], loader_generator: Optional[torch.Generator] = None) -> None:
    """Put back what `random_state` returned; GPUs that it did not see keep theirs."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    for device, saved in zip(range(torch.cuda.device_count()), state["cuda"]):
        torch.cuda.set_rng_state(saved.cpu(), device)
    if loader_generator is not None and state["loader"] is not None:
        loader_generator.set_state(state["loader"].cpu())
