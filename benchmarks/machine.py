"""The machine that a table was measured on, in one line."""

import os
import platform

import torch


def describe_machine() -> str:
    """Processor kind, number of threads, versions of what computes."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return (
        f"{device}, {torch.get_num_threads()} of {os.cpu_count()} threads, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}"
    )
