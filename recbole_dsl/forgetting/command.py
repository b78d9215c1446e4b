"""The command ``recbole-dsl forget``."""

import argparse

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.commands import refuse_others


def declare_forget(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``forget``."""
    parser.description = (
        "Take users out of checkpoints and artifacts: their rows, histories and tokens. What their data taught "
        "the weights of others is not undone. Each file is replaced whole or not at all."
    )
    parser.epilog = "Example: recbole-dsl forget saved/BPR-....pth saved/BPR-....last model.rdsl --users=users.txt"
    parser.add_argument("files", nargs="+", help="checkpoints (.pth and .last) and artifacts")
    parser.add_argument("--users", "--forget", help="a file with the token of a user on each line")
    parser.add_argument("--output", help="the file to write, if there is one to read; by default it is replaced")


def run_forget(known: argparse.Namespace, others: list[str]) -> None:
    """Forget the users, and say of each file how many it had."""
    refuse_others(others)
    if known.users is None:
        raise DSLError("--users: must be given, a file with the token of a user on each line")
    if known.output is not None and len(known.files) > 1:
        raise DSLError(f"output={known.output}: must be left out with several files")
    from recbole_dsl.forgetting.forget import forget, still_in
    from recbole_dsl.serving.requests import read_tokens

    users = read_tokens(known.users, "users")
    for path in known.files:
        print(forget(path, users, known.output))
    for path in known.files:
        other = still_in(path, users)
        if other:
            print(f"{other}: is of the same run, and still has some of them")
