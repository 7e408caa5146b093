"""Adds candidates at the start of a run and at equal distances after it."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class RefreshCallback(TrainerCallback):
    """Calls a trainer's `refresh` at the start of each round, and `restore` when a run resumes.

    Args:
        trainer: a `RabtrieverDistillationTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Adds the candidates of a round if it starts with this step."""
        trainer = self.trainer
        rounds = trainer.rounds + 1
        starts = [round_ * state.max_steps // rounds for round_ in range(rounds)]
        if trainer.candidates.shape[1] == 0 and state.global_step > 0:
            trainer.restore(len([start for start in starts if start < state.global_step]))
        for round_, start in enumerate(starts):
            if start == state.global_step:
                trainer.refresh(round_)
