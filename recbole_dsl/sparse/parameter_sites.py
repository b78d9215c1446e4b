"""The dense parameters of a model, and the modules that hold them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from recbole_dsl.sparse.weight import SparseWeight


@dataclass
class ParameterSites:
    """The dense parameters of a model by their first name, tied ones once.

    Attributes:
        owners: the modules that hold a parameter, and under which attribute.
        aliases: all its names, the first included.
        padding: the ``padding_idx`` of an ``nn.Embedding`` among its owners, or None.
    """

    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    owners: dict[str, list[tuple[nn.Module, str]]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    padding: dict[str, int | None] = field(default_factory=dict)

    def hits(self, name: str, patterns: Iterable[str]) -> set[str]:
        """The ``patterns`` that match the parameter or a module that contains it."""
        parts = [alias.split(".") for alias in self.aliases[name]]
        names = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
        return {pattern for pattern in patterns if any(fnmatchcase(n, pattern) for n in names)}

    def owning_modules(self, name: str) -> list[nn.Module]:
        return [module for module, _ in self.owners[name]]


def find_sites(model: nn.Module) -> ParameterSites:
    """Look through every module of ``model``."""
    sites, name_of = ParameterSites(), {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SparseWeight):
            continue
        for attribute, parameter in module._parameters.items():
            if parameter is None:
                continue
            full = f"{prefix}.{attribute}" if prefix else attribute
            name = name_of.setdefault(id(parameter), full)
            sites.parameters[name] = parameter
            owners = sites.owners.setdefault(name, [])
            if not any(owner is module and key == attribute for owner, key in owners):
                owners.append((module, attribute))
            sites.aliases.setdefault(name, []).append(full)
            padding = module.padding_idx if isinstance(module, nn.Embedding) else None
            sites.padding[name] = sites.padding.get(name) if padding is None else padding
    return sites
