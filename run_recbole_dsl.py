"""Train a RecBole model sparse from scratch: python run_recbole_dsl.py --model=LightGCN --density=0.1"""

import argparse
import sys
import warnings


def main() -> None:
    """Run the command line; exit with 2 and one line on what cannot be used."""
    # of RecBole's and Ray's own code, some while it is imported; the user can do nothing about them, and they
    # bury an error of one line
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(recbole|ray)\.")
    from recbole_dsl.config import describe_options
    from recbole_dsl.errors import DSLError
    from recbole_dsl.training.quick_start import run

    parser = argparse.ArgumentParser(
        prog="run_recbole_dsl",
        description="Train a RecBole model sparse from scratch. Takes every RecBole option as --name=value, and:",
        epilog="Dynamic Sparse Learning:\n" + describe_options(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", default="BPR", help="name of the model")
    parser.add_argument("--dataset", "-d", default="ml-100k", help="name of the dataset")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="number of processes in this group")
    parser.add_argument("--ip", default="localhost", help="address of the master node")
    parser.add_argument("--port", default="5678", help="port of the master node")
    parser.add_argument("--world_size", type=int, default=-1, help="total number of processes")
    parser.add_argument("--group_offset", type=int, default=0, help="global rank of this group's first process")
    args, others = parser.parse_known_args()
    try:
        _refuse_ignored(others)
        run(
            args.model,
            args.dataset,
            config_file_list=args.config_files.split() if args.config_files else None,
            nproc=args.nproc,
            world_size=args.world_size,
            ip=args.ip,
            port=args.port,
            group_offset=args.group_offset,
        )
    except DSLError as error:
        print(f"run_recbole_dsl: {error}", file=sys.stderr)
        sys.exit(2)


def _refuse_ignored(arguments: list[str]) -> None:
    """RecBole ignores what is not --name=value; one of our options must not be lost that way."""
    from recbole_dsl.config import OPTIONS, nearest
    from recbole_dsl.errors import DSLError

    for argument in arguments:
        name = argument.lstrip("-").split("=")[0].split(" ")[0]
        match = name if name in OPTIONS else nearest(name, OPTIONS)
        if argument.startswith("-") and match and (not argument.startswith("--") or argument.count("=") != 1):
            raise DSLError(f"{argument}: write --{match}=VALUE")


if __name__ == "__main__":
    main()
