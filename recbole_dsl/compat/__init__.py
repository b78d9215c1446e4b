"""RecBole 1.2.1 on today's packages: import this before RecBole, and stock RecBole runs on them too.

Each file holds what one package asks for. A function is named after what changed and says in which release; it
changes a module of RecBole when that is imported, or at once if it has been, and leaves what already works as it
is. A function that a script took from RecBole before stays what it was. Nothing of RecBole or of the packages is
imported here.
"""

from recbole_dsl.compat import (  # noqa: F401
    for_hyperopt,
    for_numpy,
    for_pandas,
    for_python,
    for_ray,
    for_recbole,
    for_scipy,
    for_thop,
    for_torch,
    for_wandb,
    harmless_files,
    on_import,
)

on_import.start()
