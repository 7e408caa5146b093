"""What the student's trainer computes: its loss terms, teachers with scores alone."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.losses import (
    answer_forward_kl,
    answer_reverse_kl,
    hidden_state_mse,
    listwise_reverse_kl,
    vocabulary_reverse_kl,
)
from modeling_rabtriever.distillation.teacher_states import TeacherScores
from modeling_rabtriever.reranking.losses import listwise_cross_entropy
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import make_trainer

PAPER = {"predictor_type": "paper", "feature_poolings": ["last"]}


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


@pytest.mark.parametrize("predictor", [None, PAPER], ids=["hadamard", "paper"])
def test_loss_is_the_weighted_sum_over_asked_pairs(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, predictor: dict[str, Any] | None
) -> None:
    weights = {"listwise_weight": 0.5, "mse_weight": 2.0, "kl_weight": 3.0}
    damping = None if predictor else 0.1
    trainer = make_trainer(reranker, task, tmp_path, predictor, temperature=1.7, whitening_damping=damping, **weights)
    trainer.refresh(0)
    rows = torch.tensor([5, 2])
    loss = trainer.compute_loss(trainer.model, {"rows": rows})
    student, queries = trainer.model, task.split("train").queries
    student_logits, teacher_logits, predicted, states = [], [], [], []
    for row in rows.tolist():
        documents = [task.corpus[place] for place in trainer.candidates[row].tolist()]
        query_features = student.query_features(queries[row])
        output = student(
            query_features=query_features.expand(len(documents), -1),
            document_features=student.document_features(documents),
        )
        student_logits.append(output.logits)
        predicted.append(output.hidden_state)
        batch = reranker.processor(query=[queries[row]] * len(documents), document=documents)
        teacher_logits.append(reranker(**batch).logits)
        states.append(reranker(**batch).hidden_state)
    s, t = torch.stack(student_logits), torch.stack(teacher_logits)
    expected = (
        0.5 * listwise_reverse_kl(s, t, 1.7)
        + 2.0 * hidden_state_mse(torch.stack(predicted), torch.stack(states))
        + 3.0 * answer_reverse_kl(s, t)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "forward KL": ({"kl_weight": 1.0, "kl_form": "forward"}, lambda s: answer_forward_kl(s.student, s.teacher)),
    "vocabulary KL": (
        {"kl_weight": 1.0, "kl_form": "vocabulary"},
        lambda s: vocabulary_reverse_kl(s.predicted @ s.head.T, s.states @ s.head.T),
    ),
    "InfoNCE": (
        {"listwise_weight": 1.0, "listwise_form": "forward", "label_share": 1.0, "temperature": 1.0},
        lambda s: listwise_cross_entropy(s.student),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_loss_is_what_its_name_says(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, form: str
) -> None:
    weights = {"listwise_weight": 0.0, "mse_weight": 0.0, "kl_weight": 0.0}
    settings, expected = FORMS[form]
    trainer = make_trainer(reranker, task, tmp_path, **{**weights, **settings})
    trainer.refresh(0)
    rows = torch.tensor([7, 3, 30])
    loss, output = trainer.compute_loss(trainer.model, {"rows": rows}, return_outputs=True)
    queries = task.split("train").queries
    logits, states = [], []
    for row in rows.tolist():
        documents = [task.corpus[place] for place in trainer.candidates[row].tolist()]
        found = reranker(**reranker.processor(query=[queries[row]] * len(documents), document=documents))
        logits.append(found.logits)
        states.append(found.hidden_state)
    known = SimpleNamespace(
        student=output.logits,
        predicted=output.hidden_state,
        teacher=torch.stack(logits),
        states=torch.stack(states),
        head=reranker.get_output_embeddings().weight,
    )
    assert loss.item() == pytest.approx(expected(known).item(), rel=1e-4)


def test_labels_share_the_target_with_the_teacher(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    two = Dataset.from_dict({"query": ["find me the ant", "show me the bear"], "relevant": [[0, 5, 7], []]})
    trainer = make_trainer(
        reranker, task, tmp_path, train_dataset=two, mse_weight=0.0, kl_weight=0.0, listwise_form="forward",
        label_share=0.4, temperature=2.0, initial_candidates=4, refresh_rounds=0,
    )  # fmt: skip
    trainer.refresh(0)
    trainer.candidates = torch.tensor([[5, 0, 3, 4], [1, 0, 5, 2]])
    asked = torch.tensor([[0], [1]]).expand(2, 4)
    trainer.teacher.ask(asked.flatten(), trainer.candidates.flatten())
    loss, output = trainer.compute_loss(trainer.model, {"rows": torch.tensor([0, 1])}, return_outputs=True)
    targets = (trainer.teacher.logits(asked, trainer.candidates) / 2).softmax(-1)
    targets[0] = 0.6 * targets[0] + torch.tensor([0.2, 0.2, 0.0, 0.0])  # nobody judged the second query
    found = (output.logits / 2).log_softmax(-1)
    expected = sum(
        q * (math.log(q) - p)
        for own, log_p in zip(targets.tolist(), found.tolist(), strict=True)
        for q, p in zip(own, log_p, strict=True)
    )
    assert loss.item() == pytest.approx(expected / 2, rel=1e-4)


def test_a_teacher_with_scores_alone(reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path) -> None:
    pools = [sorted({row % 12, *range(row % 3, 12, 2)}) for row in range(36)]
    scores = TeacherScores(
        tmp_path / "scores", 36, lambda q, d: {"logits": -((q % 12 - d) ** 2).float()}, {"scorer": "distance"}
    )
    with pytest.raises(ValueError, match="mse_weight is 0.1, kl_weight 0.1, but this teacher gives scores without"):
        make_trainer(reranker, task, tmp_path, teacher=scores)
    off = {"mse_weight": 0.0, "kl_weight": 0.0, "initial_candidates": 2, "refresh_candidates": 1}
    trainer = make_trainer(reranker, task, tmp_path, teacher=scores, pools=pools, **off)
    trainer.train()
    assert all(set(row) <= set(pool) for row, pool in zip(trainer.candidates.tolist(), pools, strict=True))
    assert len(scores) == trainer.teacher_pairs == 36 * 4
    with pytest.raises(ValueError, match=r"is 8; accepted: at most [56], the documents a query's teacher can be asked"):
        make_trainer(reranker, task, tmp_path, teacher=scores, pools=pools, **{**off, "refresh_candidates": 3})
    with pytest.raises(ValueError, match="query 1 has no relevant document among the documents its teacher scored"):
        make_trainer(
            reranker, task, tmp_path, teacher=scores, pools=[[0, 1, 2, 3]] + [[6, 7, 8, 9, 10]] * 35, **off
        ).train()
