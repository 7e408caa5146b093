"""The student's trainer: its loss, its candidates, resuming, and that it learns what the teacher knows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.evaluation.metrics import mean_metrics, rank_documents
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import make_trainer


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
        {"embedding_dim": 64, "num_heads": 2},
        initial_candidates=12,
        refresh_rounds=0,
        temperature=0.2,  # an untrained teacher's scores lie close together
        max_steps=150,
        learning_rate=5e-3,
    )

    def agreement() -> float:
        queries = task.split("train").queries
        teacher = torch.stack([reranker.predict([(query, text) for text in task.corpus]) for query in queries])
        best = [{row: 1} for row in teacher.argmax(1).tolist()]
        student = trainer.model.eval()
        scores = student.similarity(student.encode_query(queries), student.encode_document(task.corpus))
        return mean_metrics(rank_documents(scores, 10), best)["success@1"]

    before = agreement()
    trainer.train()
    assert before < 0.5 < 0.9 <= agreement()
    trainer.model.predictor.fold_whitening()
    assert agreement() >= 0.9


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


@pytest.mark.parametrize(
    "form", [{}, {"shared_dim": 16}, {"query_anchors": [[5, 6], [7]], "document_anchors": [[8]]}], ids=str
)
@pytest.mark.parametrize("stop", [3, 4])  # at the start of a round, and inside one
def test_resuming_gives_the_same_student(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, stop: int, form: dict[str, Any]
) -> None:
    predictor = {"embedding_dim": 32, "num_heads": 2, **form}
    saving = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    whole = make_trainer(reranker, task, tmp_path / "whole", predictor, **saving)
    whole.train()
    cut = make_trainer(reranker, task, tmp_path / "cut", predictor, **saving)
    cut.train()
    resumed = make_trainer(reranker, task, tmp_path / "cut", predictor, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / f"checkpoint-{stop}"))
    assert torch.equal(resumed.candidates, whole.candidates)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), atol=1e-6, rtol=1e-5)


def test_lost_or_changed_candidates_are_refused(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5}
    make_trainer(reranker, task, tmp_path, **saving).train()
    path = tmp_path / "checkpoints" / "candidates-001.safetensors"
    checkpoint = str(tmp_path / "checkpoints" / "checkpoint-5")
    content = path.read_bytes()
    message = r"candidates of round 1, without .*candidates-001.safetensors is broken .*Delete all checkpoints in"
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match=message):
        make_trainer(reranker, task, tmp_path, **saving).train(resume_from_checkpoint=checkpoint)
    path.unlink()
    with pytest.raises(ValueError, match=message):
        make_trainer(reranker, task, tmp_path, **saving).train(resume_from_checkpoint=checkpoint)


def test_checkpoint_is_a_model_that_scores_as_in_training(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = make_trainer(reranker, task, tmp_path, save_strategy="steps", save_steps=9)
    trainer.train()
    loaded = RabtrieverModel.from_pretrained(tmp_path / "checkpoints" / "checkpoint-9")
    torch.testing.assert_close(
        loaded.encode_document(task.corpus), trainer.model.eval().encode_document(task.corpus), atol=1e-5, rtol=1e-5
    )


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


def test_impossible_candidates_are_refused(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is 14; accepted: at most 12, the documents"):
        make_trainer(reranker, task, tmp_path, initial_candidates=10)


def test_queries_nobody_judged_are_distilled(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    train = task.split("train")
    labels = Dataset.from_dict({"query": train.queries, "relevant": [[] for _ in train.queries]})
    trainer = make_trainer(
        reranker, task, tmp_path, train_dataset=labels, initial_candidates=12, refresh_rounds=0, max_steps=150,
        learning_rate=3e-3,
    )  # fmt: skip
    trainer.train()
    rows = torch.arange(len(train))[:, None].expand(-1, 12)
    teacher = trainer.teacher.logits(rows, torch.arange(12).expand(len(train), -1))
    student = trainer.model.similarity(trainer._query_vectors(trainer._queries), trainer._document_vectors())
    agree = (student.argmax(1) == teacher.argmax(1)).float().mean()
    assert agree > 0.8  # no label was seen; chance is 1/12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mse_weight": -1.0}, "accepted: none below 0"),
        ({"mse_weight": 0.0, "kl_weight": 0.0, "listwise_weight": 0.0}, "at least one above"),
        ({"temperature": 0.0}, "temperature is 0.0; accepted: a number above 0"),
        ({"sampling_temperature": -1.0}, "sampling_temperature is -1.0; accepted"),
        ({"on_policy_fraction": 2.0}, "on_policy_fraction is 2.0; accepted: 0 to 1"),
        ({"on_policy_fraction": -0.5}, "on_policy_fraction is -0.5; accepted: 0 to 1"),
        ({"kl_form": "sideways"}, "kl_form is 'sideways'; accepted: reverse, forward, vocabulary"),
        ({"refresh_rounds": -1}, "refresh_rounds is -1; accepted"),
        ({"refresh_candidates": 0}, "refresh_candidates is 0; accepted: 1 or more"),
        ({"label_share": 1.5, "listwise_form": "forward"}, "label_share is 1.5; accepted: 0 to 1"),
        ({"label_share": 0.5}, "label_share is 0.5 with listwise_form 'reverse' .*; accepted: forward"),
        ({"states_dtype": "int8"}, "states_dtype is 'int8'; accepted: float32, float16"),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverDistillationConfig(output_dir=str(tmp_path), **settings)
