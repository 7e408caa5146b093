"""Retrieval tasks: folders in BEIR layout, data sets of the Hub, tasks by name, the generated household task.

A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .beir import RetrievalTask, Split, load_beir, load_hub
    from .household import write_household
    from .named import load_task, named_tasks

_PLACES = {
    "RetrievalTask": "beir",
    "Split": "beir",
    "load_beir": "beir",
    "load_hub": "beir",
    "load_task": "named",
    "named_tasks": "named",
    "write_household": "household",
}

__all__ = [
    "RetrievalTask",
    "Split",
    "load_beir",
    "load_hub",
    "load_task",
    "named_tasks",
    "write_household",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
