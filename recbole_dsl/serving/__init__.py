"""From a trained model to recommendations.

Importing this loads nothing else: each name is loaded when it is first used (PEP 562). For models whose score is a
product, `Recommender` needs neither PyTorch nor RecBole.
"""

from typing import TYPE_CHECKING

from recbole_dsl.lazy_names import lazy_names

if TYPE_CHECKING:
    from recbole_dsl.export.exporting import export
    from recbole_dsl.serving.recommender import Recommender

# the module of each public name
_HOMES = {"Recommender": "recommender", "export": ".export.exporting"}

__all__ = ["Recommender", "export"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
