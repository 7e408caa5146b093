"""A student's trainer on the animals, for the tests of its parts."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.distillation_trainer import RabtrieverDistillationTrainer
from modeling_rabtriever.distillation.encoder_training import train_encoder
from modeling_rabtriever.distillation.teacher_states import TeacherScores, TeacherStates
from modeling_rabtriever.distillation.training import labelled_queries
from modeling_rabtriever.tasks.beir import RetrievalTask
from tests.conftest import fresh_student


class StopAfter(TrainerCallback):
    """Ends a run after some steps, as if it had been killed: its last checkpoint is all that is left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stops if it is time."""
        control.should_training_stop = state.global_step == self.steps


def make_trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    folder: Path,
    shape: dict[str, Any] | None = None,
    train_dataset: Dataset | None = None,
    teacher: TeacherScores | None = None,
    given: torch.Tensor | None = None,
    callbacks: list[TrainerCallback] | None = None,
    **settings: Any,
) -> RabtrieverDistillationTrainer:
    """A few steps with every loss term and a frozen encoder.

    Args:
        shape: of `StudentArguments`.
        given: fixed candidates.
        settings: of the trainer's configuration.
    """
    torch.manual_seed(0)
    train_dataset = train_dataset or labelled_queries(task.split("train"))
    config = RabtrieverDistillationConfig(
        output_dir=str(folder / "checkpoints"),
        report_to="none",
        disable_tqdm=True,
        **{
            "use_cpu": True,
            "train_encoder": "none",
            "candidates": 8,
            "rounds": 2,
            "mse_weight": 0.1,
            "kl_weight": 0.1,
            "per_device_train_batch_size": 12,
            "max_steps": 9,
            "save_strategy": "no",
            **settings,
        },
    )
    student = fresh_student(reranker, **({"embedding_dim": 32} if shape is None else shape))
    train_encoder(student, config.train_encoder)
    if teacher is None:
        teacher = TeacherStates(folder / "states", reranker, train_dataset["query"], task.corpus)
    return RabtrieverDistillationTrainer(
        model=student,
        teacher=teacher,
        documents=task.corpus,
        train_dataset=train_dataset,
        eval_dataset=labelled_queries(task.split("dev")),
        args=config,
        candidates=given,
        callbacks=callbacks,
    )
