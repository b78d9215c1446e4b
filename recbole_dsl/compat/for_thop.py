"""What RecBole needs from thop, with which it counts FLOPs."""

import functools
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import
from recbole_dsl.errors import DSLError


@after_import("recbole.utils.utils", "recbole.utils", "recbole.quick_start.quick_start")
def missing_distutils(module: ModuleType) -> None:
    """Python 3.12 removed distutils, which thop imports and setuptools brings: say what to install."""
    count = module.get_flops
    if hasattr(count, "__wrapped__"):
        return

    @functools.wraps(count)
    def get_flops(*args: Any, **kwargs: Any) -> float:
        try:
            import thop.profile  # noqa: F401
        except ImportError as error:
            raise DSLError(
                f"RecBole counts FLOPs with thop, which fails to import ({error}): pip install thop setuptools"
            ) from error
        return count(*args, **kwargs)

    module.get_flops = get_flops
