"""The machine that a table was measured on, in one line."""

import os
import platform

import torch


def describe_machine(device: str = "cpu") -> str:
    """The kind of ``device``, "cpu" or "cuda", number of threads, versions of what computes."""
    kind = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    return (
        f"{kind}, {torch.get_num_threads()} of {os.cpu_count()} threads, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}"
    )
