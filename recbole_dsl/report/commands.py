"""The command ``recbole-dsl report``."""

import argparse
import os
import shlex
import sys

from recbole_dsl.serving.commands import refuse_others


def declare_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report``."""
    parser.description = "Write what was trained as one page that opens without a network."
    parser.epilog = (
        "Example: recbole-dsl report saved/BPR-....pth --against=saved/BPR-....pth --output=report.html"
    )
    parser.add_argument(
        "model_files", nargs="+", help="checkpoints that recbole-dsl train saved; the page is about the first"
    )
    parser.add_argument("--against", help="one more to compare with, such as a dense run (--density=1)")
    parser.add_argument("--output", help="the page to write (default: beside the first file)")
    parser.add_argument("--data_path", help="where the folder of the dataset is, if it has moved since")


def run_report(known: argparse.Namespace, others: list[str]) -> dict[str, str]:
    """Write the page, say where it is, and return that."""
    refuse_others(others)
    from recbole_dsl.report.writing import write_report

    files = [*known.model_files, *([known.against] if known.against else [])]
    page = known.output or f"{os.path.splitext(files[0])[0]}.html"
    write_report(files, page, known.data_path)
    print(f"{page}: open it in a browser (xdg-open {shlex.quote(page)})", file=sys.stderr)
    return {"page": page}
