"""Users who are to be forgotten: out of a checkpoint or an artifact, which is replaced whole or not at all."""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_dsl.errors import DSLError, first_of, shown
from recbole_dsl.files import copy_whole, output_file, require_writable
from recbole_dsl.forgetting import artifacts
from recbole_dsl.forgetting.traces import traces
from recbole_dsl.serving.artifact import Artifact, is_artifact, read_artifact, write_artifact
from recbole_dsl.serving.recommender import Recommender
from recbole_dsl.serving.tokens import Tokens, tokens_in

# users whose recommendations are compared, and how many items of each
_COMPARED, _K = 200, 10


@dataclass(frozen=True)
class Forgotten:
    """What `forget` did; as a text, in words for the user.

    Attributes:
        path: the file that was written, or would have been.
        found: the tokens that were in the file.
        missing: those that were not.
        n_left: how many users the file knows now.
        notes: what else there is to know.
    """

    path: str
    found: tuple[str, ...]
    missing: tuple[str, ...]
    n_left: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = len(self.found) + len(self.missing)
        words = f"{self.path}: forgot {len(self.found):,} of {total:,} users, {self.n_left:,} are left"
        if self.missing:
            words += f"; not in it: {first_of(self.missing)}"
        return "\n".join([words, *self.notes])


def forget(path: str | os.PathLike, users: Iterable[str], output: str | os.PathLike | None = None) -> Forgotten:
    """Take ``users`` out of a checkpoint or an artifact: their rows, histories and tokens.

    The file is replaced whole or not at all. Before that, its new content is read back, and searched for the
    tokens. Whoever was forgotten is unknown afterwards. What an artifact recommends to others stays the same,
    unless the model computes that from the histories of all; a note says so. What the users' data taught the other
    weights is not undone.

    Args:
        path: a checkpoint (``.pth`` or ``.last``) or an artifact.
        users: their tokens; those that are not in the file are passed over, so that it may be done again.
        output: the file to write; ``path`` itself if None.

    Raises:
        DSLError: if the file is damaged or of another kind, no user would be left, it cannot be told which of its
            rows are of users, or nothing can be written. The file is as it was then.
    """
    place = os.fspath(path)
    tokens = list(dict.fromkeys(tokens_in("users", users)))
    if not os.path.isfile(place):
        raise DSLError(f"file={shown(place)}: must be an existing file")
    if is_artifact(place):
        return _of_artifact(place, tokens, output)
    from recbole_dsl.checkpoint.checkpoint_file import is_checkpoint

    if is_checkpoint(place):
        return _of_checkpoint(place, tokens, output)
    raise DSLError(f"file={shown(place)}: must be a checkpoint or an artifact of recbole_dsl")


def still_in(path: str, users: Iterable[str]) -> str | None:
    """The other file of the run that the checkpoint at ``path`` is of, if it has any of ``users``."""
    stem, suffix = os.path.splitext(path)
    other = stem + {".pth": ".last", ".last": ".pth"}.get(suffix, suffix)
    if other == path or not os.path.isfile(other):
        return None
    from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
    from recbole_dsl.forgetting.checkpoints import users_of

    try:
        return other if set(users) & set(users_of(read_checkpoint(other, option="file"), other)) else None
    except DSLError:
        return None


def _of_artifact(path: str, tokens: Sequence[str], output: Any) -> Forgotten:
    place = _place(path, output, "an artifact", is_artifact)
    before = read_artifact(path)
    known = set(artifacts.users_of(before))
    found, missing = _parted(path, tokens, known)
    if not found:
        return _unchanged(path, output, place, missing, len(known))
    after = artifacts.without_users(before, found)
    notes = _compared(before, after, found)

    def check(content: bytes) -> None:
        names = artifacts.users_of(after)
        items = Tokens.read(after, "items", after.header["n_items"]).all.tolist()
        _require_gone(path, content, found, names, [*names, *items])

    write_artifact(place, after.header, after.arrays, check)
    return Forgotten(_named(path, output), found, missing, after.header["n_users"], notes)


def _of_checkpoint(path: str, tokens: Sequence[str], output: Any) -> Forgotten:
    import torch

    from recbole_dsl.checkpoint.archive import write_archive
    from recbole_dsl.checkpoint.checkpoint_file import is_checkpoint, read_checkpoint
    from recbole_dsl.checkpoint.tokens import unpack_tokens
    from recbole_dsl.forgetting import checkpoints

    place = _place(path, output, "a checkpoint", is_checkpoint)
    before = read_checkpoint(path, option="file")
    names = checkpoints.users_of(before, path)
    found, missing = _parted(path, tokens, set(names))
    if not found and not checkpoints.may_hold_others(before):
        return _unchanged(path, output, place, missing, len(names))
    after = checkpoints.without_users(before, found, path)

    def write(file: Any) -> None:
        torch.save(after, file)
        file.seek(0)
        content = file.read()
        again = torch.load(io.BytesIO(content), weights_only=True)
        every = [token for packed in again["rows"]["tokens"] for token in unpack_tokens(packed)]
        _require_gone(path, content, found, checkpoints.users_of(again, path), every)

    write_archive(place, write)
    n_left = len(names) - len(found)
    return Forgotten(_named(path, output), found, missing, n_left)


def _place(path: str, output: Any, kind: str, is_ours: Any) -> str:
    place = output_file(path if output is None else output, "output", kind, is_ours)
    require_writable(os.path.dirname(place), "output")
    return place


def _parted(path: str, tokens: Sequence[str], known: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = tuple(token for token in tokens if token in known)
    if len(found) == len(known):
        raise DSLError(f"file={shown(path)}: has no other users: must leave one, so delete the file instead")
    return found, tuple(token for token in tokens if token not in known)


def _named(path: str, output: Any) -> str:
    return path if output is None else os.fspath(output)


def _unchanged(path: str, output: Any, place: str, missing: tuple[str, ...], n_left: int) -> Forgotten:
    if output is not None and not (os.path.exists(place) and os.path.samefile(path, place)):
        copy_whole(path, place, "output")
    return Forgotten(_named(path, output), (), missing, n_left)


def _require_gone(
    path: str, content: bytes, gone: Sequence[str], users: Sequence[str], kept: Sequence[str]
) -> None:
    """Raise a DSLError if any of ``gone`` is among ``users``, or in ``content`` beside the tokens in ``kept``."""
    left = sorted(set(gone) & set(users)) or traces(content, gone, kept)
    if left:
        raise DSLError(
            f"file={shown(path)}: would still hold {shown(left[0])}, in an option, say: must hold none of them; "
            "nothing is written"
        )


def _compared(before: Artifact, after: Artifact, gone: Sequence[str]) -> tuple[str, ...]:
    """A note if what is recommended to those who stay has changed."""
    if before.header["kind"] == "product":
        # a row of a table has no part in the scores of others
        return ()
    try:
        was = Recommender.of(before)
    except DSLError:
        # a network of the user's own, whose class only a script has
        return ("the model is not of RecBole: what it recommends to others was not compared",)
    now = Recommender.of(after)
    if not was.scorer.takes_users:
        return ()
    names = now.users.all
    some = names[np.unique(np.linspace(0, len(names) - 1, min(len(names), _COMPARED)).astype(np.int64))].tolist()
    scores = [one.recommend(some, _K)[1] for one in (was, now)]
    # a model that pads histories to the longest may round otherwise
    changed = int((~np.isclose(*scores, rtol=1e-4, atol=1e-6)).any(1).sum())
    if not changed:
        return ()
    return (
        f"{after.header['model']} computes scores from the histories of all users: what it recommends to "
        f"{changed} of {len(some)} others changed",
    )
