"""The files in which a user of the command names users, histories and items."""

import json
from collections.abc import Iterator
from typing import Any

from recbole_dsl.errors import DSLError, shown
from recbole_dsl.serving.tokens import is_token


def read_tokens(path: str, option: str = "users_file") -> list[str]:
    """The tokens in a file with one on each line; empty lines are skipped.

    Raises:
        DSLError: if there is none, or the file cannot be read.
    """
    tokens = [line for _, line in _lines(path, option) if line]
    if not tokens:
        raise DSLError(f"{option}={shown(path)}: must have a token on each line, and has none")
    return tokens


def read_histories(path: str) -> tuple[list[str], list[list[str]]]:
    """The histories in a file: on each line a JSON list of tokens, or an object with "items" and perhaps "user".

    Returns:
        The user of each, or the number of its line; and the tokens of its items, oldest first.

    Raises:
        DSLError: with the number of the line that is no history, or if the file cannot be read.
    """
    names, items = [], []
    for number, line, value in _values(path, "histories"):
        if isinstance(value, list):
            value = {"items": value}
        history = value.get("items") if isinstance(value, dict) else None
        name = value.get("user", number) if isinstance(value, dict) else number
        if not isinstance(history, list) or not all(map(is_token, [name, *history])):
            raise DSLError(
                f"histories={shown(path)}, line {number}: {shown(line)} must be a JSON list of tokens, as "
                '["i3", "i9"], or {"user": "u1", "items": ["i3", "i9"]}'
            )
        names.append(str(name))
        items.append([str(item) for item in history])
    if not names:
        raise DSLError(f"histories={shown(path)}: must have a history on each line, and has none")
    return names, items


def read_new_items(path: str) -> dict[str, list[str]]:
    """The items in a file, and the users who had each: on each line a JSON object with "item" and "users".

    Raises:
        DSLError: with the number of the line that is none, or if the file cannot be read.
    """
    found: dict[str, list[str]] = {}
    for number, line, value in _values(path, "new_items"):
        item, users = (value.get("item"), value.get("users")) if isinstance(value, dict) else (None, None)
        if not isinstance(users, list) or not all(map(is_token, [item, *users])):
            raise DSLError(
                f"new_items={shown(path)}, line {number}: {shown(line)} must be "
                '{"item": "i3", "users": ["u1", "u9"]}'
            )
        found.setdefault(str(item), []).extend(str(user) for user in users)
    return found


def _values(path: str, option: str) -> Iterator[tuple[int, str, Any]]:
    """The number of each line that is not empty, the line, and the JSON value in it; None if it is none."""
    for number, line in _lines(path, option):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield number, line, value


def _lines(path: str, option: str) -> list[tuple[int, str]]:
    try:
        # UTF-8, with or without a byte order mark
        with open(path, encoding="utf-8-sig", newline=None) as file:
            return list(enumerate(file.read().split("\n"), 1))
    except OSError as error:
        raise DSLError(f"{option}={shown(path)}: must be a file that can be read: {error.strerror}") from error
    except ValueError as error:
        raise DSLError(f"{option}={shown(path)}: must be text in UTF-8") from error
