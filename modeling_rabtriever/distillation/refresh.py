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

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restores the rounds before the step from which a run resumes; after its last step it has no other."""
        if state.global_step > 0:
            self.trainer.restore(len([start for start in self._starts(state) if start < state.global_step]))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Adds the candidates of a round if it starts with this step."""
        for round_, start in enumerate(self._starts(state)):
            if start == state.global_step:
                self.trainer.refresh(round_)

    def _starts(self, state: TrainerState) -> list[int]:
        rounds = self.trainer.rounds + 1
        return [round_ * state.max_steps // rounds for round_ in range(rounds)]
