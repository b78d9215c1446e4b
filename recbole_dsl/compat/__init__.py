"""RecBole 1.2.1 on today's packages: import this before RecBole, and stock RecBole runs on them too.

Each function replaces what a module of RecBole has under a name, when that module is imported, or at once if it
has been; its first line says why. What a script took from RecBole before stays what it was. Nothing of RecBole or
of the packages is imported here.
"""

from recbole_dsl.compat import for_ray, for_recbole, for_scikit_learn, on_import, packages, saved_files  # noqa: F401

on_import.start()
