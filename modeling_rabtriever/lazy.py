"""Packages whose names are imported when they are first used, so that importing one needs no extra."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_when_used(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    Args:
        package: its `__name__`.
        places: name -> the package's module that defines it, or `.module` for a module beside the package.

    Examples:
        >>> from modeling_rabtriever.lazy import imported_when_used
        >>> imported_when_used("modeling_rabtriever.recipes", {"FOLDER": ".recipes"})("FOLDER").name
        'recipes'
    """

    def attribute(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{places[name]}", package), name)

    return attribute
