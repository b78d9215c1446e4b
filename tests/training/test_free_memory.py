"""What a process gives back of the memory that it no longer uses."""

import platform
import subprocess
import sys

import pytest

# blocks of 64 kB in the heap, every hundredth of which stays
_PROGRAM = """
import os
import numpy as np
from recbole_dsl.training.free_memory import return_free_memory

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

blocks = [np.ones(8192) for _ in range(2000)]
kept = blocks[::100]
del blocks
before = megabytes()
return_free_memory()
print(before - megabytes(), sum(block.sum() for block in kept))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, which can give memory back")
def test_memory_between_arrays_in_use_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    returned, kept = map(float, done.stdout.split())
    assert returned > 100
    assert kept == 20 * 8192
