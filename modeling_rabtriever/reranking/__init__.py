"""The teacher: its backbone, prompt, pairs and negatives, its trainers and their losses.

Needs the extra "train". A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .backbone import BackboneArguments, build_reranker
    from .pairs import NegativeArguments
    from .prompts import PromptArguments
    from .reranker_trainer import RerankerTrainer, RerankerTrainingConfig
    from .training import LoraArguments, train_reranker

__getattr__ = imported_when_used(
    __name__,
    {
        "BackboneArguments": "backbone",
        "LoraArguments": "training",
        "NegativeArguments": "pairs",
        "PromptArguments": "prompts",
        "RerankerTrainer": "reranker_trainer",
        "RerankerTrainingConfig": "reranker_trainer",
        "build_reranker": "backbone",
        "train_reranker": "training",
    },
)

__all__ = [
    "BackboneArguments",
    "LoraArguments",
    "NegativeArguments",
    "PromptArguments",
    "RerankerTrainer",
    "RerankerTrainingConfig",
    "build_reranker",
    "train_reranker",
]
