"""Retrieval tasks: folders in BEIR layout, data sets of the Hub, named tasks, the generated household task.

A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .beir import RetrievalTask, Split, load_beir, load_hub
    from .household import write_household
    from .named import load_task, named_tasks

__getattr__ = imported_when_used(
    __name__,
    {
        "RetrievalTask": "beir",
        "Split": "beir",
        "load_beir": "beir",
        "load_hub": "beir",
        "load_task": "named",
        "named_tasks": "named",
        "write_household": "household",
    },
)

__all__ = [
    "RetrievalTask",
    "Split",
    "load_beir",
    "load_hub",
    "load_task",
    "named_tasks",
    "write_household",
]
