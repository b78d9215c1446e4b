"""Run every fault, or those of the subjects that are named: python -m tests.faults [bad_inputs ...]"""

import importlib
import os
import sys
import time

# each is a module here with run(), which gives a Row for each case
SUBJECTS = ("bad_inputs", "good_inputs", "hostile_files", "hostile_headers", "kills", "nights")


def main(subjects: list[str]) -> int:
    """Print a table of the subjects and what failed; the exit code is 1 if anything did."""
    import torch

    torch.set_num_threads(1)
    failed, table = [], [f"{'subject':<16}{'cases':>8}{'failed':>8}{'seconds':>9}"]
    for subject in subjects or SUBJECTS:
        if subject not in SUBJECTS:
            sys.exit(f"{subject}: the subjects are {', '.join(SUBJECTS)}")
        start = time.perf_counter()
        rows = list(importlib.import_module(f"tests.faults.{subject}").run())
        wrong = [row for row in rows if row.problem]
        failed += wrong
        table.append(f"{subject:<16}{len(rows):>8}{len(wrong):>8}{time.perf_counter() - start:>9.0f}")
    for row in failed:
        print(f"{row.case}: {row.problem}")
    print("\n".join(table))
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
