"""What RecBole needs from hyperopt."""

import functools
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, replaced
from recbole_dsl.compat.releases import release
from recbole_dsl.errors import DSLError


@after_import("recbole.trainer.hyper_tuning")
def generator_instead_of_random_state(module: ModuleType) -> None:
    """hyperopt 0.2.6 and later draw from a `Generator`; RecBole's exhaustive search makes a `RandomState`."""
    import numpy as np

    def random_state(seed: int) -> Any:
        return (np.random.default_rng if release("hyperopt") >= (0, 2, 6) else np.random.RandomState)(seed)

    module.np = replaced(module.np, random=replaced(np.random, RandomState=random_state))


@after_import("recbole.trainer.hyper_tuning")
def missing_package(module: ModuleType) -> None:
    """RecBole looks for hyperopt in the midst of a search: say before that what to install.

    hyperopt before 0.2.6 does not import on all that today's Python and NumPy are.
    """
    start = module.HyperTuning.__init__

    @functools.wraps(start)
    def start_with_hyperopt(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            import hyperopt  # noqa: F401
        except Exception as error:
            # an old release fails in as many ways as there are packages that it imports
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise DSLError(f'HyperTuning needs hyperopt ({reason}): pip install "hyperopt>=0.2.7"') from error
        start(self, *args, **kwargs)

    module.HyperTuning.__init__ = start_with_hyperopt
