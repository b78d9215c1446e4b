"""What every script prints around its numbers: the command, the machine, a table."""

import argparse
import sys
from collections.abc import Sequence
from statistics import mean, stdev

import torch

from benchmarks.machine import describe_machine


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse ``arguments`` (None: the command line), and take ``--threads`` and ``--data_path`` on the way."""
    parser.add_argument("--threads", type=int, help="threads of PyTorch; by default as many as it chooses")
    parser.add_argument("--data_path", default="dataset", help="folder of the datasets, and of generated ones")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    options.command = " ".join(["python -m", parser.prog, *given])
    # RecBole's Config reads the command line too
    sys.argv = sys.argv[:1]
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def print_header(title: str, options: argparse.Namespace, *notes: str) -> None:
    """Print a title, the command that makes the table, the machine, and notes, a paragraph each."""
    device = getattr(options, "device", "cpu")
    print("\n\n".join([f"## {title}", f"    {options.command}", f"{describe_machine(device)}.", *notes]) + "\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, the first column aligned to the left, the others to the right."""
    print(markdown_table(head, rows), flush=True)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """What `print_table` prints."""
    lines = (head, ["---", *["---:"] * (len(head) - 1)], *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def mean_of_seeds(values: Sequence[float]) -> str:
    """The mean of ``values``, with four digits, and their standard deviation if there are several."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
