"""The forward pass of sequential models without the padding of their histories."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise
from types import MethodType
from typing import Any, NamedTuple

import torch
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from torch import Tensor, nn

_NORMALISING = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm
# positions of a block: what a layer makes of them stays in the processor's cache
_POSITIONS = 8192
# positions of padding that a block may have, for a further block costs as much
_SPARE = 1000
# histories on which both ways are compared
_COMPARED = 64


@contextmanager
def without_padding(model: AbstractRecommender) -> Iterator[None]:
    """Within it, ``model.forward`` reads histories of similar length together, cut where the longest ends.

    Its vectors are those of whole histories, up to rounding, and so are their gradients. Dropout draws other
    random numbers. The first histories of different lengths go both ways, and the model reads whole ones if the
    vectors differ. It also does if its layers normalise batches, have hooks or keep something of a batch, and on a
    GPU, which small blocks do not help.
    """
    if not _may_be_divided(model):
        yield
        return
    model.forward = MethodType(_in_blocks(), model)
    try:
        yield
    finally:
        vars(model).pop("forward", None)


class _Call(NamedTuple):
    """The arguments of ``forward``, and which of them are the histories: (n, length), int64, padded with 0."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    histories: Tensor

    def of(self, rows: Tensor, width: int | None = None) -> "_Call":
        """The same for some ``rows``, int64, and the first ``width`` places of their histories."""

        def part(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.shape[:1] != self.histories.shape[:1]:
                return value
            is_long = value.shape[:2] == self.histories.shape
            return value[rows, :width] if is_long else value[rows]

        kwargs = {name: part(value) for name, value in self.kwargs.items()}
        return _Call(tuple(map(part, self.args)), kwargs, part(self.histories))


def _call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
    for value in chain(args, kwargs.values()):
        if isinstance(value, Tensor) and value.dim() == 2 and value.dtype == torch.int64 and value.numel():
            return _Call(args, kwargs, value)
    return None


def _may_be_divided(model: AbstractRecommender) -> bool:
    if not isinstance(model, SequentialRecommender) or "forward" in vars(model):
        return False
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return False
    return not any(
        isinstance(m, _NORMALISING) or m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    )


def _in_blocks() -> Callable[..., Any]:
    is_same: bool | None = None

    def forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal is_same
        whole = partial(type(model).forward, model)
        call = None if is_same is False else _call(args, kwargs)
        if call is None:
            return whole(*args, **kwargs)
        lengths = _lengths(call.histories)
        if is_same is None and lengths.min() < lengths.max():
            is_same = _is_same(model, call, lengths)
        return _divided(whole, call, lengths, _SPARE) if is_same else whole(*args, **kwargs)

    return forward


def _lengths(histories: Tensor) -> Tensor:
    """The place after the last item of each of ``histories`` (n, length), at least 1: (n,), int64."""
    places = torch.arange(1, histories.shape[1] + 1)
    return ((histories != 0) * places).amax(1).clamp_(min=1)


def _divided(whole: Callable[..., Tensor], call: _Call, lengths: Tensor, spare: int) -> Tensor:
    blocks = _blocks(lengths, spare)
    parts = [call.of(rows, width) for rows, width in blocks]
    order = torch.cat([rows for rows, _ in blocks])
    return torch.cat([whole(*part.args, **part.kwargs) for part in parts])[order.argsort()]


def _blocks(lengths: Tensor, spare: int) -> list[tuple[Tensor, int]]:
    """Rows of similar ``lengths`` (n,) and the longest of each block, longest first.

    Args:
        spare: the most positions of padding of a block, before it is divided for its size.
    """
    order = lengths.argsort(descending=True, stable=True)
    counts = torch.bincount(lengths).tolist()
    ends, widths, padding = [0], [], spare + 1
    for length in range(len(counts) - 1, 0, -1):
        n = counts[length]
        if not n:
            continue
        padding += n * ((widths[-1] if widths else length) - length)
        if padding > spare:
            widths.append(length)
            ends.append(ends[-1])
            padding = 0
        ends[-1] += n
    blocks = []
    for (begin, end), width in zip(pairwise(ends), widths):
        parts = -((begin - end) * width // _POSITIONS)
        blocks += [(rows, width) for rows in order[begin:end].tensor_split(parts)]
    return blocks


def _is_same(model: nn.Module, call: _Call, lengths: Tensor) -> bool:
    """Whether ``model`` gives the same vectors for some histories of ``call`` without their padding."""
    order = lengths.argsort()
    rows = order[torch.linspace(0, len(order) - 1, min(_COMPARED, len(order))).long()]
    some, whole = call.of(rows), partial(type(model).forward, model)
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            before = _kept(model)
            whole(*some.args, **some.kwargs)
            model.eval()
            expected = whole(*some.args, **some.kwargs)
            found = _divided(whole, some, lengths[rows], spare=0)
            scale = float(expected.abs().max())
            is_same = found.shape == expected.shape and torch.allclose(found, expected, 1e-4, 1e-5 * scale)
            return is_same and before == _kept(model)
    except Exception:
        # what the model cannot do with shorter histories
        return False
    finally:
        for module, mode in modes.items():
            module.training = mode


def _kept(model: nn.Module) -> list[tuple[str, int]]:
    """What the modules of ``model`` hold as attributes and buffers."""
    held = (chain(vars(m).items(), m._buffers.items()) for m in model.modules())
    return [(name, id(value)) for name, value in chain.from_iterable(held) if name != "training"]
