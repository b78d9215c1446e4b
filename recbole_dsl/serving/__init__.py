"""From a trained model to recommendations: the artifact, and who reads it.

Importing this loads nothing else: each name is loaded when it is first used (PEP 562), and `Recommender` needs
neither PyTorch nor RecBole for models whose score is a product.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_dsl.serving.exporting import export
    from recbole_dsl.serving.recommender import Recommender

# the module of each public name
_HOMES = {"Recommender": "recommender", "export": "exporting"}

__all__ = ["Recommender", "export"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
