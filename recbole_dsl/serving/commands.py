"""The command ``recbole-dsl recommend``."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from recbole_dsl.environment import check_serving_environment
from recbole_dsl.errors import DSLError, refusal, shown


def declare_recommend(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``recommend``."""
    parser.description = "Recommend from a file that recbole-dsl export made."
    parser.epilog = "Example: recbole-dsl recommend model.rdsl --users=u1,u2 --k=10"
    parser.add_argument("artifact", help="a file that recbole-dsl export wrote")
    parser.add_argument("--users", help="tokens of users, separated by commas, or all")
    parser.add_argument("--users_file", help="a file with the token of a user on each line")
    parser.add_argument(
        "--histories",
        help="a file with the history of a user on each line, for users that were not trained on: a JSON list of "
        'items, ["i3", "i9"], or {"user": "u1", "items": ["i3", "i9"]}',
    )
    parser.add_argument(
        "--similar_to",
        help="tokens of items, separated by commas: the items most similar to each; the column similar_to then "
        "names it, in the place of user",
    )
    parser.add_argument("--k", default="10", help="how many items; 10 by default")
    parser.add_argument(
        "--filter_seen",
        help="items of a user's history to leave out: all, trained or none; by default what the file knows",
    )
    parser.add_argument(
        "--new_items",
        help='a file of items that came after training, on each line {"item": "i3", "users": ["u1", "u9"]}, the '
        "users who had it",
    )
    parser.add_argument("--items", help="the items to choose from, separated by commas; all by default")
    parser.add_argument("--items_file", help="the same, a file with one on each line")
    parser.add_argument("--exclude", help="items to leave out, separated by commas")
    parser.add_argument("--exclude_file", help="the same, a file with one on each line")
    parser.add_argument(
        "--unknown", default="error", help="what unknown users get: error, or popular items; error by default"
    )
    parser.add_argument("--output", help="the file to write, .csv, .jsonl or .parquet; printed by default")
    parser.add_argument("--format", help="csv, jsonl or parquet; by default as --output ends")
    parser.add_argument("--show_progress", default="True", help="whether to show a progress bar; True by default")


def run_recommend(known: argparse.Namespace, others: list[str]) -> dict[str, Any] | None:
    """Recommend, and print the items, or write them to a file and return what it has."""
    refuse_others(others)
    if known.output is None and known.output_format is not None:
        raise DSLError(
            f"output-format={known.output_format}: must be left out without --output, as stdout has the items; "
            "--format=jsonl gives them as JSON"
        )
    names = ("users", "users_file", "histories", "similar_to")
    ways = [f"--{name}" for name in names if getattr(known, name) is not None]
    if len(ways) != 1:
        given = f"{' and '.join(ways)}: must be" if ways else "must be given"
        raise DSLError(f"{given} one of {', '.join(f'--{name}' for name in names)}")
    check_serving_environment()
    from recbole_dsl.serving.output import format_of, print_recommendations, write_recommendations
    from recbole_dsl.serving.recommender import Recommender
    from recbole_dsl.serving.requests import read_new_items

    is_shown = truth("show_progress", known.show_progress) and known.output is not None
    format = format_of(known.output, known.format)
    of, whom = ("user", "user") if known.similar_to is None else ("similar_to", "item")
    recommender = Recommender.load(known.artifact)
    if known.new_items is not None:
        recommender = recommender.with_items(read_new_items(known.new_items))
    n, batches = _batches(recommender, known)
    batches = _with_bar(n, batches, is_shown, whom)
    if known.output is None:
        print_recommendations(batches, sys.stdout.buffer, format, of)
        return None
    names = ("artifact", "users_file", "histories", "new_items", "items_file", "exclude_file")
    inputs = [getattr(known, name) for name in names]
    n_rows = write_recommendations(batches, known.output, format, inputs, of)
    whose = f"{n:,} {whom}{'' if n == 1 else 's'}"
    print(f"{known.output}: {n_rows:,} recommendation{'' if n_rows == 1 else 's'} for {whose}", file=sys.stderr)
    return {"output": known.output, "format": format, f"n_{whom}s": n, "n_recommendations": n_rows}


def _batches(recommender: Any, known: argparse.Namespace) -> tuple[int, Iterator]:
    """How many users there are, and the recommendations for them, a batch at a time."""
    from recbole_dsl.serving.requests import read_histories

    k = number(known.k, int)
    options: dict[str, Any] = {"exclude": _tokens(known, "exclude")}
    if known.similar_to is not None:
        tokens = known.similar_to.split(",")
        return len(tokens), recommender.batches_of_similar(tokens, k, **options)
    options.update(items=_tokens(known, "items"), unknown=known.unknown)
    if options["items"] is not None and not set(options["items"]) - set(options["exclude"] or ()):
        raise refusal("exclude", ",".join(options["exclude"]), "some of items at most, and leaves none of them")
    if known.histories is not None:
        names, histories = read_histories(known.histories)
        options["filter_seen"] = known.filter_seen in (None, "all", "trained")
        if known.filter_seen not in (None, "all", "none"):
            raise refusal("filter_seen", known.filter_seen, "all or none for histories")
        return len(names), recommender.batches_for(names, histories, k, **options)
    users = None if known.users == "all" else _tokens(known, "users")
    options["filter_seen"] = known.filter_seen
    return len(recommender.users if users is None else users), recommender.batches(users, k, **options)


def _with_bar(n: int, batches: Iterator, is_shown: bool, unit: str) -> Iterator:
    from tqdm import tqdm

    # None shows it only on a terminal
    with tqdm(
        total=n, dynamic_ncols=True, unit=f" {unit}s", disable=None if is_shown else True, leave=False
    ) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch[0]))


def _tokens(known: argparse.Namespace, name: str) -> list[str] | None:
    """The tokens of the option ``name`` or of its file; None if neither is given."""
    from recbole_dsl.serving.requests import read_tokens

    given, file = getattr(known, name), getattr(known, f"{name}_file")
    if given is not None and file is not None:
        raise DSLError(f"{name}={given}: must be given here or in --{name}_file, and is in both")
    if file is not None:
        return read_tokens(file, f"{name}_file")
    return None if given is None else given.split(",")


def refuse_others(others: list[str]) -> None:
    """Raise a DSLError if there are arguments that a command does not know."""
    if others:
        raise DSLError(f"{others[0]}: must be one of the options that --help lists, written --name=value")


def number(word: str, kind: type) -> Any:
    """``word`` as a number of ``kind``; as it is if it is none, to be refused with the other options."""
    try:
        return kind(word)
    except ValueError:
        return word


def truth(name: str, word: str) -> bool:
    """Whether ``word``, given for ``name``, is True."""
    if word.lower() not in ("true", "false"):
        raise DSLError(f"{name}={shown(word)}: must be True or False")
    return word.lower() == "true"
