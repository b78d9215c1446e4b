"""Which tables have a row for each user, and which for each item."""

from collections.abc import Mapping

from torch import nn


def side_of(size: int, name: str, numbers: Mapping[str, int]) -> str | None:
    """The side of ``numbers`` with ``size`` members, such as "user" or "item"; None if neither or both.

    If several have as many, ``name`` must hold the side.
    """
    sides = [side for side, number in numbers.items() if number == size]
    if len(sides) > 1:
        sides = [side for side in sides if side in name.lower()]
    return sides[0] if len(sides) == 1 else None


def item_tables(model: nn.Module) -> set[str]:
    """The names of the dense embeddings of items in ``model``, if it has embeddings of users and no other weights.

    RecBole's models say how many there are, as ``n_users`` and ``n_items``.
    """
    numbers = {side: getattr(model, f"n_{side}s", None) for side in ("user", "item")}
    if not all(isinstance(number, int) for number in numbers.values()):
        return set()
    sides, known = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.embedding_dim > 1:
            sides[f"{name}.weight"] = side_of(module.num_embeddings, name, numbers)
            known.add(id(module.weight))
    is_all = {id(parameter) for parameter in model.parameters()} == known
    if not is_all or set(sides.values()) != set(numbers):
        return set()
    return {name for name, side in sides.items() if side == "item"}
