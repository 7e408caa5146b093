"""The student: `distill()`, its trainer and losses, candidates, encoders, the cache of what the teacher says.

Of the extra "train". A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .distillation_config import RabtrieverDistillationConfig
    from .distillation_trainer import RabtrieverDistillationTrainer
    from .student_arguments import StudentArguments
    from .teacher_states import TeacherScores, TeacherStates
    from .training import distill

_PLACES = {
    "RabtrieverDistillationConfig": "distillation_config",
    "RabtrieverDistillationTrainer": "distillation_trainer",
    "StudentArguments": "student_arguments",
    "TeacherScores": "teacher_states",
    "TeacherStates": "teacher_states",
    "distill": "training",
}

__all__ = [
    "RabtrieverDistillationConfig",
    "RabtrieverDistillationTrainer",
    "StudentArguments",
    "TeacherScores",
    "TeacherStates",
    "distill",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
