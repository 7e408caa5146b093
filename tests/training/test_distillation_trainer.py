"""The student's trainer: its loss, its candidates, resuming, and that it learns what the teacher knows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from evaluation.metrics import mean_metrics, rank_documents
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from training.distill import judged_queries
from training.distillation_config import RabtrieverDistillationConfig
from training.distillation_trainer import RabtrieverDistillationTrainer
from training.losses import (
    answer_forward_kl,
    answer_reverse_kl,
    hidden_state_mse,
    listwise_cross_entropy,
    listwise_reverse_kl,
    margin_mse,
    normalized_hidden_state_mse,
    vocabulary_reverse_kl,
)
from training.tasks.beir import RetrievalTask, load_beir
from training.teacher_states import TeacherScores, TeacherStates

PAPER = {"predictor_type": "paper", "feature_poolings": ["last"]}


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


def _trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    folder: Path,
    predictor: dict[str, Any] | None = None,
    train_dataset: Dataset | None = None,
    teacher: TeacherScores | None = None,
    pools: list[list[int]] | None = None,
    **settings: Any,
) -> RabtrieverDistillationTrainer:
    torch.manual_seed(0)
    train_dataset = train_dataset or judged_queries(task.split("train"))
    config = RabtrieverDistillationConfig(
        output_dir=str(folder / "checkpoints"),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **{
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
        model=RabtrieverModel.from_teacher(reranker, **(predictor or {"embedding_dim": 32, "num_heads": 2})),
        teacher=TeacherStates(folder / "states", reranker, train_dataset["query"], task.corpus)
        if teacher is None
        else teacher,
        documents=task.corpus,
        train_dataset=train_dataset,
        eval_dataset=judged_queries(task.split("dev")),
        args=config,
        pools=pools,
    )


@pytest.mark.parametrize("predictor", [None, PAPER], ids=["hadamard", "paper"])
def test_loss_is_the_weighted_sum_over_asked_pairs(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, predictor: dict[str, Any] | None
) -> None:
    weights = {"listwise_weight": 0.5, "mse_weight": 2.0, "kl_weight": 3.0}
    damping = None if predictor else 0.1
    trainer = _trainer(reranker, task, tmp_path, predictor, temperature=1.7, whitening_damping=damping, **weights)
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
    "normalised states": (
        {"mse_weight": 2.0, "normalize_states": True},
        lambda s: 2 * normalized_hidden_state_mse(s.predicted, s.states),
    ),
    "forward KL": ({"kl_weight": 1.0, "kl_form": "forward"}, lambda s: answer_forward_kl(s.student, s.teacher)),
    "vocabulary KL": (
        {"kl_weight": 1.0, "kl_form": "vocabulary"},
        lambda s: vocabulary_reverse_kl(s.predicted @ s.head.T, s.states @ s.head.T),
    ),
    "MarginMSE": ({"margin_mse_weight": 3.0}, lambda s: 3 * margin_mse(s.student, s.teacher)),
    "InfoNCE": ({"infonce_weight": 1.0}, lambda s: listwise_cross_entropy(s.student)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_loss_is_what_its_name_says(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, form: str
) -> None:
    weights = {"listwise_weight": 0.0, "mse_weight": 0.0, "kl_weight": 0.0}
    settings, expected = FORMS[form]
    trainer = _trainer(reranker, task, tmp_path, **{**weights, **settings})
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


def test_infonce_leaves_other_positives_out(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    two = Dataset.from_dict({"query": ["find me the ant", "show me the bear"], "relevant": [[0, 5, 7], [1]]})
    trainer = _trainer(
        reranker, task, tmp_path, train_dataset=two, listwise_weight=0.0, mse_weight=0.0, kl_weight=0.0,
        infonce_weight=1.0, initial_candidates=4, refresh_rounds=0,
    )  # fmt: skip
    trainer.refresh(0)
    trainer.candidates = torch.tensor([[5, 0, 3, 4], [1, 0, 5, 2]])
    trainer.teacher.ask(torch.tensor([0, 1]).repeat_interleave(4), trainer.candidates.flatten())
    loss, output = trainer.compute_loss(trainer.model, {"rows": torch.tensor([0, 1])}, return_outputs=True)
    first = -output.logits[0, [0, 2, 3]].log_softmax(0)[0]
    second = -output.logits[1].log_softmax(0)[0]
    assert loss.item() == pytest.approx(((first + second) / 2).item(), rel=1e-5)


def test_teacher_top_candidates_are_the_best_of_the_pool(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = _trainer(
        reranker, task, tmp_path, on_policy_fraction=0.25, teacher_top_fraction=0.5, teacher_pool=5,
        initial_candidates=2, refresh_rounds=1, refresh_candidates=4,
    )  # fmt: skip
    trainer.refresh(0)
    trainer.refresh(1)
    assert trainer.candidates.shape == (36, 6)
    assert all(len(set(row)) == 6 for row in trainer.candidates.tolist())
    assert trainer.teacher_pairs == 36 * (2 + 4 + 5 - 2)
    asked = len(trainer.teacher)
    assert 36 * (2 + 1 + 5) <= asked <= trainer.teacher_pairs  # a uniform one may have been in the pool
    for row, drawn in enumerate(trainer.candidates.tolist()):
        known = [d for d in range(12) if (trainer.teacher._keys == d * 36 + row).any()]
        best = trainer.teacher.logits(torch.tensor([row] * 2), torch.tensor(drawn[3:5]))
        passed_over = [d for d in known if d not in drawn]
        others = trainer.teacher.logits(torch.tensor([row] * len(passed_over)), torch.tensor(passed_over))
        assert best.min() >= others.max()


def test_a_teacher_with_scores_alone(reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path) -> None:
    pools = [sorted({row % 12, *range(row % 3, 12, 2)}) for row in range(36)]
    scores = TeacherScores(
        tmp_path / "scores", 36, lambda q, d: {"logits": -((q % 12 - d) ** 2).float()}, {"scorer": "distance"}
    )
    with pytest.raises(ValueError, match="mse_weight is 0.1, kl_weight 0.1, but this teacher gives scores without"):
        _trainer(reranker, task, tmp_path, teacher=scores)
    off = {"mse_weight": 0.0, "kl_weight": 0.0, "initial_candidates": 2, "refresh_candidates": 1}
    trainer = _trainer(reranker, task, tmp_path, teacher=scores, pools=pools, **off)
    trainer.train()
    assert all(set(row) <= set(pool) for row, pool in zip(trainer.candidates.tolist(), pools, strict=True))
    assert len(scores) == trainer.teacher_pairs == 36 * 4
    with pytest.raises(ValueError, match=r"is 8; accepted: at most [56], the documents a query's teacher can be asked"):
        _trainer(reranker, task, tmp_path, teacher=scores, pools=pools, **{**off, "refresh_candidates": 3})
    with pytest.raises(ValueError, match="query 1 has no relevant document among the documents its teacher scored"):
        _trainer(
            reranker, task, tmp_path, teacher=scores, pools=[[0, 1, 2, 3]] + [[6, 7, 8, 9, 10]] * 35, **off
        ).train()


def test_student_learns_the_teachers_ranking(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = _trainer(
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
    trainer = _trainer(reranker, task, tmp_path)
    trainer.train()
    assert trainer.candidates.shape == (36, 8)
    assert all(len(set(row)) == 8 for row in trainer.candidates.tolist())
    for row, relevant in zip(trainer.candidates.tolist(), task.split("train").relevant, strict=True):
        assert set(relevant) <= set(row)
    assert len(trainer.teacher) == 36 * 8


def test_frozen_parts_stay_as_they_are(reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path) -> None:
    trainer = _trainer(reranker, task, tmp_path)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name.split(".")[0] for name, w in trainer.model.state_dict().items() if not torch.equal(w, before[name])}
    assert changed == {"predictor"}
    for name in ("predictor.query_whitening.weight", "predictor.document_whitening.bias"):
        assert torch.equal(trainer.model.state_dict()[name], before[name])


@pytest.mark.parametrize("stop", [3, 4])  # at the start of a round, and inside one
def test_resuming_gives_the_same_student(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, stop: int
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    whole = _trainer(reranker, task, tmp_path / "whole", **saving)
    whole.train()
    cut = _trainer(reranker, task, tmp_path / "cut", **saving)
    cut.train()
    resumed = _trainer(reranker, task, tmp_path / "cut", **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / f"checkpoint-{stop}"))
    assert torch.equal(resumed.candidates, whole.candidates)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), atol=1e-6, rtol=1e-5)


def test_checkpoint_is_a_model_that_scores_as_in_training(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = _trainer(reranker, task, tmp_path, save_strategy="steps", save_steps=9)
    trainer.train()
    loaded = RabtrieverModel.from_pretrained(tmp_path / "checkpoints" / "checkpoint-9")
    torch.testing.assert_close(
        loaded.encode_document(task.corpus), trainer.model.eval().encode_document(task.corpus), atol=1e-5, rtol=1e-5
    )


def test_log_holds_the_terms_and_the_teachers_bill(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    trainer = _trainer(reranker, task, tmp_path, logging_steps=3, eval_strategy="steps", eval_steps=9, kl_weight=0.0)
    trainer.train()
    records = [record for record in trainer.state.log_history if "loss" in record]
    assert [record["teacher_pairs"] for record in records] == [144, 216, 288]
    assert all({"listwise", "mse"} <= record.keys() and "kl" not in record for record in records)
    evaluation = next(record for record in trainer.state.log_history if "eval_success@1" in record)
    assert 0 <= evaluation["eval_success@1"] <= evaluation["eval_success@5"] <= 1


def test_nan_states_stop_training(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(reranker, task, tmp_path)
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(trainer.teacher, "hidden_states", lambda rows, _: nan.expand(*rows.shape, 32))
    with pytest.raises(ValueError, match=r"the student's loss is not finite \(.*mse=nan"):
        trainer.train()


def test_impossible_candidates_are_refused(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is 14; accepted: at most 12, the documents"):
        _trainer(reranker, task, tmp_path, initial_candidates=10)
    nobody = Dataset.from_dict({"query": ["a", "b"], "relevant": [[0], []]})
    with pytest.raises(ValueError, match="query 1 has no relevant document"):
        _trainer(reranker, task, tmp_path / "nobody", train_dataset=nobody).train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mse_weight": -1.0}, "accepted: none below 0"),
        ({"mse_weight": 0.0, "kl_weight": 0.0, "listwise_weight": 0.0}, "at least one above"),
        ({"temperature": 0.0}, "temperature is 0.0; accepted: a number above 0"),
        ({"sampling_temperature": -1.0}, "sampling_temperature is -1.0; accepted"),
        ({"on_policy_fraction": 2.0}, "on_policy_fraction is 2.0, teacher_top_fraction 0.0; accepted: 0 to 1"),
        ({"on_policy_fraction": 0.8, "teacher_top_fraction": 0.5}, "accepted: 0 to 1, also their sum"),
        ({"on_policy_fraction": 0.5, "teacher_top_fraction": 0.5}, "teacher_pool is 0; accepted: at least the 4"),
        ({"teacher_pool": 5}, "teacher_pool is 5; accepted: .* 0 where that fraction is 0"),
        ({"kl_form": "sideways"}, "kl_form is 'sideways'; accepted: reverse, forward, vocabulary"),
        ({"refresh_rounds": -1}, "refresh_rounds is -1; accepted"),
        ({"states_dtype": "int8"}, "states_dtype is 'int8'; accepted: float32, float16"),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverDistillationConfig(output_dir=str(tmp_path), **settings)
