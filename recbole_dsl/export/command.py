"""The command ``recbole-dsl export``."""

import argparse
import sys
from dataclasses import asdict
from typing import Any

from recbole_dsl.serving.commands import number, refuse_others, truth


def declare_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.description = "Make one small file of a checkpoint, for recbole-dsl recommend."
    parser.epilog = "Example: recbole-dsl export saved/BPR-....pth model.rdsl --values=int8"
    parser.add_argument("model_file", help="a checkpoint that recbole-dsl train saved")
    parser.add_argument("artifact", help="the file to write")
    parser.add_argument("--values", default="fp32", help="fp32, fp16, int8 or int4; fp32 by default")
    parser.add_argument(
        "--seen",
        default="all",
        help="items of the user histories that the file keeps, to leave them out: all in the data, those trained "
        "on (trained), or none; all by default",
    )
    parser.add_argument("--density", help="share of the vectors' entries to keep, the largest; all by default")
    parser.add_argument(
        "--propagate",
        default="False",
        help="True stores the sparse weights of a graph model, and propagates them when the file is loaded",
    )
    parser.add_argument(
        "--compare", default="True", help="whether to compute NDCG@10 on the validation data; True by default"
    )
    parser.add_argument("--data_path", help="where the folder of the dataset is, if it has moved since")


def run_export(known: argparse.Namespace, others: list[str]) -> dict[str, Any]:
    """Write the artifact, say what it is, and return that."""
    refuse_others(others)
    from recbole_dsl.export.exporting import export

    done = export(
        known.model_file,
        known.artifact,
        values=known.values,
        seen=known.seen,
        density=None if known.density is None else number(known.density, float),
        propagate=truth("propagate", known.propagate),
        compare=truth("compare", known.compare),
        data_path=known.data_path,
    )
    print(done, file=sys.stderr)
    return asdict(done)
