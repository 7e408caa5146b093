"""A student's trainer on the animals, for the tests of its parts."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.distillation_trainer import RabtrieverDistillationTrainer
from modeling_rabtriever.distillation.teacher_states import TeacherScores, TeacherStates
from modeling_rabtriever.distillation.training import judged_queries
from modeling_rabtriever.tasks.beir import RetrievalTask


def make_trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    folder: Path,
    predictor: dict[str, Any] | None = None,
    train_dataset: Dataset | None = None,
    teacher: TeacherScores | None = None,
    pools: list[list[int]] | None = None,
    model: RabtrieverModel | None = None,
    **settings: Any,
) -> RabtrieverDistillationTrainer:
    """Few steps; `settings` are the trainer's own."""
    torch.manual_seed(0)
    train_dataset = train_dataset or judged_queries(task.split("train"))
    config = RabtrieverDistillationConfig(
        output_dir=str(folder / "checkpoints"),
        report_to="none",
        disable_tqdm=True,
        **{
            "use_cpu": True,
            "initial_candidates": 4,
            "refresh_rounds": 2,
            "refresh_candidates": 2,
            "per_device_train_batch_size": 12,
            "max_steps": 9,
            "save_strategy": "no",
            **settings,
        },
    )
    return RabtrieverDistillationTrainer(
        model=model or RabtrieverModel.from_teacher(reranker, **(predictor or {"embedding_dim": 32, "num_heads": 2})),
        teacher=TeacherStates(folder / "states", reranker, train_dataset["query"], task.corpus)
        if teacher is None
        else teacher,
        documents=task.corpus,
        train_dataset=train_dataset,
        eval_dataset=judged_queries(task.split("dev")),
        args=config,
        pools=pools,
    )
