"""Pairs of a user and an item, with users numbered from 0 within a batch."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Items of users.

    Attributes:
        users: (pairs,) int64.
        items: (pairs,) int64.
    """

    users: Tensor
    items: Tensor

    @classmethod
    def of(cls, items: Iterable[Tensor]) -> "Pairs":
        """The pairs of users 0, 1, ... with their ``items``."""
        items = list(items)
        counts = torch.tensor([len(part) for part in items])
        return cls(torch.repeat_interleave(counts), torch.cat(items))

    def to(self, device: torch.device) -> "Pairs":
        return Pairs(self.users.to(device), self.items.to(device))

    def keys(self, n_items: int) -> Tensor:
        """(pairs,): a distinct number for each user and item, where items are below ``n_items``."""
        return self.users * n_items + self.items

    def distinct(self) -> "Pairs":
        """The distinct pairs, sorted by user and item."""
        if not len(self.items):
            return self
        n_items = int(self.items.max()) + 1
        keys = torch.unique(self.keys(n_items))
        return Pairs(keys // n_items, keys % n_items)


def is_among(ids: Tensor, pairs: Pairs) -> Tensor:
    """(n, k) bool: which of the items ``ids`` (n, k) of each user are among ``pairs``."""
    n_items = 1 + max(int(part.max()) if part.numel() else 0 for part in (ids, pairs.items))
    users = torch.arange(len(ids), device=ids.device)[:, None]
    return torch.isin(users * n_items + ids, pairs.keys(n_items))
