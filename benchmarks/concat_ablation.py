"""The paper's ablation without the product: an MLP on both states joined. No inner product, so no index can serve it.

It stands where the student does (trainer, evaluation), but what it calls vectors are the features themselves, and every
score runs the MLP on one pair.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, set_seed

from benchmarks.tasks import SPLITS
from evaluation.report import evaluate_systems
from evaluation.systems import rabtriever_system, reranker_system
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel
from modeling_rabtriever.modeling_predictor import RabtrieverPredictor
from training import distill
from training.distillation_trainer import RabtrieverDistillationTrainer
from training.evaluate import fixed_sample
from training.recipe import parse_stage
from training.tasks.beir import load_beir
from training.teacher_states import TeacherStates

PAIRS_PER_BLOCK = 65_536


class ConcatPredictor(RabtrieverPredictor):
    """`h_hat = MLP([x_Q; x_D])`, two layers with ReLU."""

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        units = config.predictor_hidden_size
        self.of_query = nn.Linear(config.feature_size, units)  # the first layer, in its two halves
        self.of_document = nn.Linear(config.feature_size, units, bias=False)
        self.to_state = nn.Linear(units, config.hidden_size)

    def forward(self, query_features: Tensor, document_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`(n, features)` and `(n, features)` [`(n, c, features)`] -> `(n, d)` [`(n, c, d)`]."""
        query = self.of_query(query_features)
        if document_features.dim() == 3:
            query = query.unsqueeze(1)
        return self.to_state((query + self.of_document(document_features)).relu())

    def encode_query(self, query_features: Tensor, answer_direction: Tensor) -> Tensor:
        """The features as they are."""
        return query_features

    def encode_document(self, document_features: Tensor) -> Tensor:
        """The features as they are."""
        return document_features


class ConcatModel(RabtrieverModel):
    """A student whose score is no inner product."""

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        self.predictor = ConcatPredictor(config)

    @torch.no_grad()
    def similarity(self, query_embeds: Tensor, document_embeds: Tensor) -> Tensor:
        """The MLP on every pair: `(n, features)` and `(m, features)` -> `(n, m)` fp32."""
        rows = []
        for queries in query_embeds.split(max(1, PAIRS_PER_BLOCK // len(document_embeds))):
            documents = document_embeds.expand(len(queries), -1, -1)
            rows.append(self.predictor(queries, documents, self.answer_direction) @ self.answer_direction)
        return torch.cat(rows)


def concat_trainer(
    reranker: GenerativeRerankerModel, states: Path, argv: list[str]
) -> tuple[RabtrieverDistillationTrainer, Any]:
    """A trainer of the ablation with the settings of a `training.distill` command line, and its task."""
    run, student, *_, config = parse_stage("distill", distill.ARGUMENTS, argv)
    task = load_beir(run.data)
    train = task.split(run.train_split)
    set_seed(config.seed)
    trainer = RabtrieverDistillationTrainer(
        model=ConcatModel.from_teacher(reranker, **student.predictor()),
        teacher=TeacherStates(states, reranker, train.queries, task.corpus),
        documents=task.corpus,
        train_dataset=distill.judged_queries(train),
        eval_dataset=distill.judged_queries(task.split(run.dev_split)),
        args=config,
    )
    return trainer, task


def concat_row(teacher: Path, states: Path, argv: list[str], queries: int | None) -> dict[str, Any]:
    """Trains and evaluates the ablation: split -> `n`, R@1 and MRR@10 of teacher and student."""
    reranker = AutoModel.from_pretrained(teacher).eval()
    trainer, task = concat_trainer(reranker, states, argv)
    trainer.train()
    systems = [reranker_system(reranker, task.corpus), rabtriever_system(trainer.model.eval(), task.corpus)]
    found: dict[str, Any] = {}
    for name in SPLITS:
        split = fixed_sample(task.split(name), queries)
        report = evaluate_systems({system.name: system.score(split.queries) for system in systems}, split.relevant)
        metrics = {system.name: report["systems"][system.name] for system in systems}
        found[name] = {"n": report["n"]} | {who: metrics[who]["success@1"] for who in metrics}
        found[name]["mrr@10"] = {who: metrics[who]["mrr@10"] for who in metrics}
    return found
