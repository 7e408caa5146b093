"""Students whose encoder trains: what they start from, what a step reads and changes, and what is left at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.encoders import (
    finish_encoder,
    other_encoder,
    start_alike,
    student_of,
    teachers_encoder,
    train_encoder,
)
from modeling_rabtriever.distillation.sides import MovingSide
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.training import distill
from modeling_rabtriever.stages.distill import main as distill_main
from modeling_rabtriever.tasks.beir import load_beir
from tests.conftest import DOCUMENTS, QUERIES
from tests.training.students import make_trainer
from tests.training.tiny_encoders import SPECIAL, write_encoder, write_sentence_transformer


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("family", SPECIAL)
def test_another_encoder_reads_as_it_does_by_itself(
    reranker: GenerativeRerankerModel, tmp_path: Path, family: str, pooling: str
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", family, pooling, "bring ")
    student = student_of(other_encoder(str(folder), reranker.processor), reranker)
    theirs = SentenceTransformer(str(folder), device="cpu")
    for own, texts, prompt in (
        (student.document_features(DOCUMENTS), DOCUMENTS, ""),
        (student.query_features(QUERIES), QUERIES, "bring "),
    ):
        alone = torch.cat([theirs.encode([prompt + text], convert_to_tensor=True) for text in texts])
        torch.testing.assert_close(torch.nn.functional.normalize(own), alone, atol=1e-5, rtol=0)
    student.save_pretrained(tmp_path / "student")
    again = RabtrieverModel.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(again.encode_query(QUERIES), student.encode_query(QUERIES))
    assert again.processor.true_token_id is None and again.config.answer_size == reranker.config.hidden_size


def test_limits_leave_room_for_the_encoders_frame(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    reranker = make_reranker()
    reranker.processor = reranker.processor.replace(max_document_length=60, max_query_length=20)
    encoder = other_encoder(str(write_encoder(tmp_path / "roberta", "roberta")), reranker.processor)
    assert encoder.processor.max_document_length == 36  # 40 positions less padding's two and the two special tokens
    assert encoder.processor.max_query_length == 20
    student_of(encoder, reranker).encode_document(["bring the ladder " * 30])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules.json": [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.WordWeights"}]},
         "has modules Transformer, WordWeights; accepted: Transformer, Pooling, Normalize"),
        ({"1_Pooling/config.json": {"embedding_dimension": 24, "pooling_mode": "weightedmean"}},
         "pools by weightedmean; accepted: one of cls, mean, lasttoken"),
    ],
)  # fmt: skip
def test_what_an_encoder_cannot_do_is_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    for name, content in changes.items():
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        other_encoder(str(folder), reranker.processor)


def test_a_folder_that_is_no_model_is_refused(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder .* cannot be loaded .*; accepted: a Hub id or a folder"):
        other_encoder(str(tmp_path), reranker.processor)


def test_the_first_layers_of_the_teacher(reranker: GenerativeRerankerModel) -> None:
    student = student_of(teachers_encoder(reranker, 1), reranker, feature_poolings=["last"])
    assert student.config.text_config.num_hidden_layers == 1
    (ids,) = reranker.processor.document_ids(DOCUMENTS[:1])
    states = reranker.backbone.base_model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    norm = reranker.backbone.base_model.norm
    torch.testing.assert_close(student.document_features(DOCUMENTS[:1]), norm(states[1][:, -1]))
    with pytest.raises(ValueError, match="encoder_layers is 3; accepted: 1 to 2"):
        teachers_encoder(reranker, 3)


def test_a_retriever_starts_by_ranking_as_it_did(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    student = student_of(other_encoder(str(folder), reranker.processor), reranker, predictor_hidden_size=48)
    start_alike(student)
    products = student.query_features(QUERIES) @ student.document_features(DOCUMENTS).T
    scores = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    assert torch.corrcoef(torch.stack([products.flatten(), scores.flatten()]))[0, 1] > 0.98
    with pytest.raises(ValueError, match="predictor_hidden_size is 24; accepted for a start .*: 48"):
        start_alike(student_of(other_encoder(str(folder), reranker.processor), reranker))


def test_a_step_reads_what_the_model_encodes(student: RabtrieverModel) -> None:
    train_encoder(student, "full", 0)
    side = MovingSide(student, "document", DOCUMENTS)
    rows = torch.tensor([2, 0, 3])
    features = side.features(rows)
    torch.testing.assert_close(features, student.document_features([DOCUMENTS[row] for row in rows]))
    features.sum().backward()
    assert all(weight.grad is not None for weight in student.backbone.parameters())
    torch.testing.assert_close(side.mapped(student.predictor.encode_document), student.encode_document(DOCUMENTS))


@pytest.mark.parametrize("how", ["none", "lora", "full"])
def test_what_trains(reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, how: str) -> None:
    task = load_beir(beir_folder)
    student = student_of(teachers_encoder(reranker), reranker, embedding_dim=32)
    before = {name: weight.clone() for name, weight in student.backbone.state_dict().items()}
    train_encoder(student, how, 4)
    trainer = make_trainer(
        reranker, task, tmp_path, model=student, train_encoder=how, max_steps=40, encoder_learning_rate=1e-2,
        learning_rate=1e-2, mse_weight=0.0, kl_weight=0.0, listwise_form="forward", logging_steps=5,
    )  # fmt: skip
    trainer.train()
    losses = [record["listwise"] for record in trainer.state.log_history if "listwise" in record]
    assert losses[-1] < 0.5 * losses[0]
    vectors = student.eval().encode_document(task.corpus)
    finish_encoder(student, how)
    torch.testing.assert_close(student.encode_document(task.corpus), vectors, atol=1e-4, rtol=1e-4)
    after = student.backbone.state_dict()
    assert after.keys() == before.keys()
    moved = [name for name in after if not torch.equal(after[name], before[name])]
    linear = [name for name in after if "proj" in name and name.endswith("weight")]
    assert set(moved) == {"none": set(), "lora": set(linear), "full": set(after)}[how]
    assert not any(weight.requires_grad for weight in student.backbone.parameters())


def test_documents_of_other_queries_count_unless_they_are_known(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    """The loss of a batch, against a naive sum over lists of the query's own and the other queries' documents."""
    task = load_beir(beir_folder)
    trainer = make_trainer(
        reranker, task, tmp_path, listwise_form="forward", in_batch_documents=True, mse_weight=0.0, kl_weight=0.0
    )
    trainer.refresh(0)
    rows = torch.arange(5)
    lists = trainer.candidates[rows]
    every = trainer.model.similarity(
        trainer._query_vectors(trainer._queries), trainer._document_vectors()
    )  # fmt: skip
    total = 0.0
    for row in rows.tolist():
        own = lists[row].tolist()
        others = {d for line in lists.tolist() for d in line} - {*own} - {*task.split("train").relevant[row]}
        log_p = (every[row, [*own, *sorted(others)]] / 2).log_softmax(0)[: len(own)]
        log_q = (trainer.teacher.logits(torch.full((len(own),), row), torch.tensor(own)) / 2).log_softmax(0)
        total += float((log_q.exp() * (log_q - log_p)).sum()) / len(rows)
    loss = trainer.compute_loss(trainer.model, {"rows": rows})
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_settings_that_do_not_fit_are_refused(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    task = load_beir(beir_folder)
    for settings, message in (
        ({"train_encoder": "half"}, "train_encoder is 'half'; accepted: none, lora, full"),
        ({"encoder_learning_rate": 0.0}, "encoder_learning_rate is 0.0; accepted: a number above 0"),
        ({"in_batch_documents": True}, "in_batch_documents is true with listwise_form 'reverse'; accepted: forward"),
        ({"activation_checkpointing": True}, "accepted: false for an encoder that does not train"),
        ({"listwise_form": "x"}, "listwise_form is 'x'; accepted: reverse, forward, symmetric"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(reranker, task, tmp_path, **settings)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_an_interrupted_run_ends_with_the_same_weights(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, how: str
) -> None:
    task = load_beir(beir_folder)

    def trainer(folder: Path) -> Any:
        torch.manual_seed(0)
        student = student_of(teachers_encoder(reranker), reranker, embedding_dim=32)
        train_encoder(student, how, 4)
        settings = {"save_strategy": "steps", "save_steps": 1, "encoder_learning_rate": 1e-2, "mse_weight": 0.0}
        return make_trainer(reranker, task, folder, model=student, train_encoder=how, **settings)

    whole, cut = trainer(tmp_path / "whole"), trainer(tmp_path / "cut")
    whole.train()
    cut.train()
    resumed = trainer(tmp_path / "cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / "checkpoint-4"))
    assert torch.equal(resumed.candidates, whole.candidates)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"activation_checkpointing": True}, {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}],
    ids=str,
)
def test_what_saves_memory_changes_no_weight(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    task = load_beir(beir_folder)
    found = []
    for number, own in enumerate(({}, settings)):
        torch.manual_seed(0)
        student = student_of(teachers_encoder(reranker), reranker, embedding_dim=32)
        train_encoder(student, "full", 0)
        trainer = make_trainer(
            reranker, task, tmp_path / str(number), model=student, train_encoder="full", optim="sgd", learning_rate=0.1,
            encoder_learning_rate=0.1, max_steps=3, refresh_rounds=0, initial_candidates=12, **own,
        )  # fmt: skip
        trainer.train()
        found.append(student.state_dict())
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_mixed_precision_trains_the_encoder(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    """Its weights stay fp32, and so do vectors and losses."""
    task = load_beir(beir_folder)
    student = student_of(teachers_encoder(reranker), reranker, embedding_dim=32)
    train_encoder(student, "full", 0)
    trainer = make_trainer(
        reranker, task, tmp_path, model=student, train_encoder="full", bf16=True, max_steps=30, logging_steps=5,
        encoder_learning_rate=1e-2, learning_rate=1e-2, mse_weight=0.0, kl_weight=0.0,
    )  # fmt: skip
    trainer.train()
    losses = [record["listwise"] for record in trainer.state.log_history if "listwise" in record]
    assert losses[-1] < 0.5 * losses[0]
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}
    assert trainer._document_vectors().dtype == torch.float32


def test_from_python(reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path) -> None:
    """The function gives what the stage writes."""
    task = load_beir(beir_folder)
    reranker.save_pretrained(tmp_path / "teacher")
    settings: dict[str, Any] = {
        "train_encoder": "full", "initial_candidates": 4, "refresh_rounds": 1, "refresh_candidates": 2, "max_steps": 4,
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 12,
    }  # fmt: skip
    config = RabtrieverDistillationConfig(str(tmp_path / "python"), **settings)
    student = distill(reranker, task, config, StudentArguments(embedding_dim=16))
    flags = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
    flags += ["--data", str(beir_folder), "--output_dir", str(tmp_path / "stage"), "--embedding_dim", "16"]
    folder = distill_main([*flags, "--teacher", str(tmp_path / "teacher")])
    stage = RabtrieverModel.from_pretrained(folder)
    torch.testing.assert_close(student.encode_query(QUERIES), stage.encode_query(QUERIES), atol=1e-5, rtol=1e-4)
    small = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    flags += ["--output_dir", str(tmp_path / "small"), "--encoder", str(small), "--embedding_dim", "null"]
    again = RabtrieverModel.from_pretrained(distill_main([*flags, "--teacher", str(tmp_path / "teacher")]))
    assert again.config.hidden_size == again.config.embedding_dim == 24
    assert again.config.answer_size == reranker.config.hidden_size
