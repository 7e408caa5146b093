"""Model cards of a run, and the release of a model folder with its card.

Of the extra "evaluation". A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generate import CardArguments, write_cards
    from .publishing import Release, release

_PLACES = {
    "CardArguments": "generate",
    "Release": "publishing",
    "release": "publishing",
    "write_cards": "generate",
}

__all__ = [
    "CardArguments",
    "Release",
    "release",
    "write_cards",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
