"""The student: `distill()`, its trainer and losses, candidates, encoders, the cache of teacher scores.

Needs the extra "train". A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .distillation_config import RabtrieverDistillationConfig
    from .distillation_trainer import RabtrieverDistillationTrainer
    from .student_arguments import StudentArguments
    from .teacher_states import TeacherScores, TeacherStates
    from .training import distill

__getattr__ = imported_when_used(
    __name__,
    {
        "RabtrieverDistillationConfig": "distillation_config",
        "RabtrieverDistillationTrainer": "distillation_trainer",
        "StudentArguments": "student_arguments",
        "TeacherScores": "teacher_states",
        "TeacherStates": "teacher_states",
        "distill": "training",
    },
)

__all__ = [
    "RabtrieverDistillationConfig",
    "RabtrieverDistillationTrainer",
    "StudentArguments",
    "TeacherScores",
    "TeacherStates",
    "distill",
]
