"""Less dropout for sparse weights, which overfit less than dense ones."""

from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn

# a row with a tenth of the columns loses more to dropout than a whole one. But GRU4Rec, which has a single dropout
# layer, is better with all of it
_POWER = 0.4
_KINDS = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout


def scale_dropout(model: nn.Module, density: float, factor: float | None) -> dict[float, float]:
    """Multiply the probability of each dropout layer of ``model`` by ``factor``, in place.

    Args:
        density: of the sparse weights.
        factor: None is ``density`` to the power 0.4 for models of the next item with two dropout layers or more,
            which read their tables through all of them, and 1 for others.

    Returns:
        The new probability for each old one that changed.
    """
    layers = [module for module in model.modules() if isinstance(module, _KINDS)]
    if factor is None:
        factor = density**_POWER if isinstance(model, SequentialRecommender) and len(layers) > 1 else 1.0
    changed = {}
    for layer in layers:
        before, layer.p = layer.p, factor * layer.p
        if layer.p != before:
            changed[before] = layer.p
    return changed
