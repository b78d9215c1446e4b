"""Train a RecBole model sparse from scratch: python run_recbole_dsl.py --model=LightGCN --density=0.1

The same as ``recbole-dsl train``.
"""

import sys

from recbole_dsl import cli


def main() -> None:
    """Run ``recbole-dsl train`` with the options of this command line."""
    cli.main(["train", *sys.argv[1:]], program="run_recbole_dsl")


if __name__ == "__main__":
    main()
