"""Taking users out of a checkpoint or an artifact."""

from recbole_dsl.lazy_names import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from recbole_dsl.forgetting.forget import Forgotten, forget

# the module of each public name
_HOMES = {"Forgotten": "forget", "forget": "forget"}

__all__ = ["Forgotten", "forget"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
