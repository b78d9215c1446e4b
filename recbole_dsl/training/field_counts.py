"""How often each row of a table of fields is trained."""

from collections.abc import Iterator

import torch
from recbole.data.dataset import Dataset
from recbole.model.layers import FMEmbedding
from torch import Tensor, nn

from recbole_dsl.data.lazy_columns import column_of
from recbole_dsl.sparse.weight import SparseWeight


def field_counts(model: nn.Module, dataset: Dataset) -> dict[SparseWeight, Tensor]:
    """How often ``dataset`` has the token of each row, (rows,) int64, for the sparse tables of its fields.

    These are the tables of RecBole's context-aware models: one of all fields with a token, and one for each field
    with several. First orders have them too. Tables that a model adds are left out.
    """
    counts: dict[str, Tensor] = {}
    found = {}
    for table, fields, is_padded in _tables(model):
        weight = table._modules.get("weight")
        # modules of a user's own may name nothing, or what is no field
        is_known = bool(fields) and all(field in dataset.field2id_token for field in fields)
        if not isinstance(weight, SparseWeight) or not is_known:
            continue
        for field in fields:
            if field not in counts:
                counts[field] = _tokens_of(dataset, field)
        rows = torch.cat([counts[field] for field in fields])
        if len(rows) == weight.n_rows:
            if is_padded:
                rows[0] = 0
            found[weight] = rows
    return found


def _tables(model: nn.Module) -> Iterator[tuple[nn.Module, list[str], bool]]:
    """Each table, the fields whose tokens are its rows, and whether its first row pads lists."""
    for module in model.modules():
        table = getattr(module, "token_embedding_table", None)
        if isinstance(table, FMEmbedding):
            yield table.embedding, getattr(module, "token_field_names", []), False
        tables = getattr(module, "token_seq_embedding_table", None)
        if isinstance(tables, nn.ModuleList):
            fields = getattr(module, "token_seq_field_names", [])
            yield from ((table, [field], True) for table, field in zip(tables, fields))


def _tokens_of(dataset: Dataset, field: str) -> Tensor:
    """(tokens,) int64: how many interactions have each token of ``field``, their own or their user's or item's."""
    n_tokens = dataset.num(field)
    if field in dataset.inter_feat:
        return torch.bincount(column_of(dataset.inter_feat, field).reshape(-1), minlength=n_tokens)
    for owner, feat in (dataset.uid_field, dataset.user_feat), (dataset.iid_field, dataset.item_feat):
        if feat is None or field not in feat:
            continue
        tokens = column_of(feat, field)
        times = torch.bincount(column_of(dataset.inter_feat, owner), minlength=len(tokens))
        n_each = tokens[0].numel()
        found = torch.zeros(n_tokens, dtype=torch.int64)
        return found.index_add_(0, tokens.reshape(-1), times.repeat_interleave(n_each))
    return torch.zeros(n_tokens, dtype=torch.int64)
