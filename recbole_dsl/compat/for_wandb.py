"""What RecBole needs from Weights and Biases."""

import functools
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import
from recbole_dsl.errors import DSLError, described


@after_import("recbole.utils.wandblogger")
def missing_package_or_key(module: ModuleType) -> None:
    """Say in one line what ``log_wandb`` lacks: the package, a key, the network."""
    setup = module.WandbLogger.setup

    @functools.wraps(setup)
    def named(self: Any) -> None:
        try:
            setup(self)
        except Exception as error:
            raise DSLError(
                "log_wandb=True: must have the package wandb and a key (wandb login), or WANDB_MODE=offline: "
                f"{described(error)}"
            ) from error

    module.WandbLogger.setup = named
