"""Model cards of a run, and the release of a model folder with its card.

Needs the extra "evaluation". A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .generate import CardArguments, write_cards
    from .publishing import Release, release

__getattr__ = imported_when_used(
    __name__,
    {
        "CardArguments": "generate",
        "Release": "publishing",
        "release": "publishing",
        "write_cards": "generate",
    },
)

__all__ = [
    "CardArguments",
    "Release",
    "release",
    "write_cards",
]
