"""What RecBole needs from SciPy 1.11 and later."""

from types import ModuleType

from recbole_dsl.compat.on_import import after_import, replaced


@after_import(
    "recbole.model.general_recommender.gcmc",
    "recbole.model.general_recommender.lightgcn",
    "recbole.model.general_recommender.ncl",
    "recbole.model.general_recommender.ngcf",
    "recbole.model.general_recommender.spectralcf",
    "recbole.model.knowledge_aware_recommender.kgin",
    "recbole.model.knowledge_aware_recommender.mcclk",
)
def dok_matrix_update(module: ModuleType) -> None:
    """SciPy 1.11 made a `dok_matrix` hold a dict rather than be one, and removed its ``_update``."""
    from scipy.sparse import dok_matrix

    if hasattr(dok_matrix, "_update"):
        return

    class Updated(dok_matrix):
        def _update(self, values: dict[tuple[int, int], float]) -> None:
            self._dict.update(values)

    module.sp = replaced(module.sp, dok_matrix=Updated)
