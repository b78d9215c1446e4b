"""The command ``recbole-dsl forget``."""

import argparse
from typing import Any

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


def run_forget(known: argparse.Namespace, others: list[str]) -> dict[str, Any]:
    """Forget the users, and say of each file how many it had.

    Returns:
        for each file that was written how many were forgotten and how many are left, and the files that still
        have some.
    """
    refuse_others(others)
    if known.users is None:
        raise DSLError("--users: must be given, a file with the token of a user on each line")
    if known.output is not None and len(known.files) > 1:
        raise DSLError(f"output={known.output}: must be left out with several files")
    from recbole_dsl.forgetting.forget import forget, still_in
    from recbole_dsl.serving.requests import read_tokens

    users = read_tokens(known.users, "users")
    done = []
    for path in known.files:
        done.append(forget(path, users, known.output))
        print(done[-1])
    remaining = [other for path in known.files if (other := still_in(path, users))]
    for other in remaining:
        print(f"{other}: is of the same run, and still has some of them")
    files = [{"file": one.path, "n_forgotten": len(one.found), "n_users": one.n_left} for one in done]
    return {"files": files, "still_in": remaining}
