"""A teacher behind a server: `ServedTeacher` asks any OpenAI-compatible server for log-odds.

Needs the extra "evaluation". A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .teacher import ServedTeacher

__getattr__ = imported_when_used(__name__, {"ServedTeacher": "teacher"})

__all__ = ["ServedTeacher"]
