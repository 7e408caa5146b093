"""The student's trainer: its loss, its candidates, resuming, and that it learns what the teacher knows."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.teacher_states import TeacherScores
from modeling_rabtriever.distillation.training import finished
from modeling_rabtriever.evaluation.metrics import mean_metrics, rank_documents
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import StopAfter, make_trainer


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


def test_student_learns_the_teachers_ranking(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = make_trainer(
        reranker,
        task,
        tmp_path,
        {"embedding_dim": 64},
        candidates=12,
        rounds=0,
        temperature=0.2,  # an untrained teacher's scores lie close together
        max_steps=150,
        learning_rate=5e-3,
    )
    queries = task.split("train").queries
    teacher = torch.stack([reranker.predict([(query, text) for text in task.corpus]) for query in queries])
    best = [{row: 1} for row in teacher.argmax(1).tolist()]

    def agreement(query_embeds: torch.Tensor, document_embeds: torch.Tensor) -> float:
        scores = trainer.model.similarity(query_embeds, document_embeds)
        return mean_metrics(rank_documents(scores, 10), best)["success@1"]

    before = agreement(trainer._query_vectors(trainer._queries), trainer._document_vectors())
    trainer.train()
    student = finished(trainer)
    assert before < 0.5 < 0.9 <= agreement(student.encode_query(queries), student.encode_document(task.corpus))


def test_student_learns_the_answers_of_any_scorer(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    """One that knows them, and gives no states."""
    split = task.split("train")
    teacher = TeacherScores(
        tmp_path / "scores", len(split), lambda q, d: {"logits": -((q % 12 - d) ** 2).float()}, {"scorer": "distance"}
    )
    trainer = make_trainer(
        reranker, task, tmp_path, teacher=teacher, candidates=12, temperature=0.5, max_steps=120, learning_rate=5e-3,
        mse_weight=0.0, kl_weight=0.0,
    )  # fmt: skip
    trainer.train()
    student = finished(trainer)
    scores = student.similarity(student.encode_query(split.queries), student.encode_document(task.corpus))
    assert mean_metrics(rank_documents(scores, 10), split.relevant)["success@1"] >= 0.9


def test_candidates_grow_by_rounds_and_never_repeat(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = make_trainer(reranker, task, tmp_path)
    trainer.train()
    assert trainer.candidates.shape == (36, 8)
    assert all(len(set(row)) == 8 for row in trainer.candidates.tolist())
    for row, relevant in zip(trainer.candidates.tolist(), task.split("train").relevant, strict=True):
        assert set(relevant) <= set(row)
    assert len(trainer.teacher) == 36 * 8


def test_frozen_parts_stay_as_they_are(reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path) -> None:
    trainer = make_trainer(reranker, task, tmp_path)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name.split(".")[0] for name, w in trainer.model.state_dict().items() if not torch.equal(w, before[name])}
    assert changed == {"predictor"}
    for name in ("predictor.query_whitening.weight", "predictor.document_whitening.bias"):
        assert torch.equal(trainer.model.state_dict()[name], before[name])


@pytest.mark.parametrize("how", ["none", "lora", "full"])
@pytest.mark.parametrize(
    ("stop", "size"),  # at the start of a round, inside one, after the last step inside an epoch and at the end of one
    [(3, 2), (4, 2), (9, 2), (9, 4)],
)
def test_resuming_gives_the_same_student(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, stop: int, size: int, how: str
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", "train_encoder": how}
    settings |= {"encoder_learning_rate": 1e-2, "label_share": 0.5}
    settings |= {
        "per_device_train_batch_size": size,
        "candidates": 4,
    }  # few documents, so that hard negatives are others
    whole = make_trainer(reranker, task, tmp_path / "whole", **settings)
    whole.train()
    cut = make_trainer(reranker, task, tmp_path / "cut", **settings, callbacks=[StopAfter(stop)])
    cut.train()
    assert cut.state.global_step == stop
    resumed = make_trainer(reranker, task, tmp_path / "cut", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / f"checkpoint-{stop}"))
    assert torch.equal(resumed.candidates, whole.candidates)
    assert resumed.state.global_step == whole.state.global_step == 9
    assert all(record.get("train_loss") != 0 for record in resumed.state.log_history)  # a mean over no steps
    torch.testing.assert_close(finished(resumed).state_dict(), finished(whole).state_dict(), atol=1e-6, rtol=1e-5)


def test_lost_or_changed_candidates_are_refused(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5, "save_total_limit": None}
    make_trainer(reranker, task, tmp_path, **saving).train()
    path = tmp_path / "checkpoints" / "candidates-001.safetensors"
    checkpoint = str(tmp_path / "checkpoints" / "checkpoint-5")
    content = path.read_bytes()
    message = r"candidates of round 1, .*candidates-001.safetensors is broken .*delete all checkpoints in"
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match=message):
        make_trainer(reranker, task, tmp_path, **saving).train(resume_from_checkpoint=checkpoint)
    path.unlink()
    with pytest.raises(ValueError, match=message):
        make_trainer(reranker, task, tmp_path, **saving).train(resume_from_checkpoint=checkpoint)


def test_log_holds_the_terms_and_the_teachers_bill(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = make_trainer(
        reranker, task, tmp_path, logging_steps=3, eval_strategy="steps", eval_steps=9, kl_weight=0.0
    )
    trainer.train()
    records = [record for record in trainer.state.log_history if "loss" in record]
    assert [record["teacher_pairs"] for record in records] == [144, 216, 288]
    assert all({"listwise", "mse"} <= record.keys() and "kl" not in record for record in records)
    evaluation = next(record for record in trainer.state.log_history if "eval_success@1" in record)
    assert 0 <= evaluation["eval_success@1"] <= evaluation["eval_success@5"] <= 1


def test_nan_states_stop_training(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(reranker, task, tmp_path)
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(trainer.teacher, "hidden_states", lambda rows, _: nan.expand(*rows.shape, 32))
    with pytest.raises(ValueError, match=r"the student's loss is not finite \(.*mse=nan"):
        trainer.train()


def test_more_candidates_than_documents_are_refused(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="candidates is 14; accepted: at most 12, the number of documents"):
        make_trainer(reranker, task, tmp_path, candidates=14)


def test_fixed_candidates_take_the_place_of_drawn_ones(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    fixed = (torch.arange(36)[:, None] + torch.tensor([0, 3, 4, 9, 11])) % 12
    trainer = make_trainer(reranker, task, tmp_path, given=fixed, candidates=14, rounds=3)
    trainer.train()
    assert torch.equal(trainer.candidates, fixed) and trainer.teacher_pairs == len(trainer.teacher) == 36 * 5


def test_queries_without_labels_are_distilled(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    train = task.split("train")
    labels = Dataset.from_dict({"query": train.queries, "relevant": [[] for _ in train.queries]})
    trainer = make_trainer(
        reranker, task, tmp_path, train_dataset=labels, candidates=12, rounds=0, max_steps=150,
        learning_rate=3e-3,
    )  # fmt: skip
    trainer.train()
    rows = torch.arange(len(train))[:, None].expand(-1, 12)
    teacher = trainer.teacher.logits(rows, torch.arange(12).expand(len(train), -1))
    student = trainer.model.similarity(trainer._query_vectors(trainer._queries), trainer._document_vectors())
    agree = (student.argmax(1) == teacher.argmax(1)).float().mean()
    assert agree > 0.8  # no label was seen; chance is 1/12
