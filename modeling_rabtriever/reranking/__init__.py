"""The teacher: its backbone, prompt, pairs and negatives, its trainers and their losses.

Of the extra "train". A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import BackboneArguments, PromptArguments, build_reranker
    from .pairs import NegativeArguments
    from .reranker_trainer import RerankerTrainer, RerankerTrainingConfig
    from .training import LoraArguments, train_reranker

_PLACES = {
    "BackboneArguments": "backbone",
    "LoraArguments": "training",
    "NegativeArguments": "pairs",
    "PromptArguments": "backbone",
    "RerankerTrainer": "reranker_trainer",
    "RerankerTrainingConfig": "reranker_trainer",
    "build_reranker": "backbone",
    "train_reranker": "training",
}

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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
