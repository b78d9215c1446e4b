"""The states of all random generators that a training draws from, as tensors and plain data."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch


def random_state(loader_generators: Iterable[torch.Generator] = (), with_gpus: bool = True) -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators and of ``loader_generators``."""
    kind, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if with_gpus and torch.cuda.is_available() else [],
        "loaders": [generator.get_state() for generator in loader_generators],
    }


def restore_random_state(state: Mapping[str, Any], loader_generators: Iterable[torch.Generator] = ()) -> None:
    """Put back what `random_state` returned; GPUs that it did not see keep theirs."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    for device, saved in zip(range(torch.cuda.device_count()), state["cuda"]):
        torch.cuda.set_rng_state(saved.cpu(), device)
    for generator, saved in zip(loader_generators, state["loaders"]):
        generator.set_state(saved.cpu())


def equal_states(one: Any, other: Any) -> bool:
    """Whether two of what `random_state` returned are the same."""
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    if isinstance(one, (dict, list)):
        pairs = zip(one.values(), other.values()) if isinstance(one, dict) else zip(one, other)
        return len(one) == len(other) and all(equal_states(*pair) for pair in pairs)
    return one == other
