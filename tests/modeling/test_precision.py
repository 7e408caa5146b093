"""In every number type vectors and scores are fp32, and in fp32's order as far as the backbone's type allows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BitsAndBytesConfig

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.identity import encoder_fingerprint, same_encoder
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.retrieval import ExactIndex
from tests.conftest import DOCUMENTS, QUERIES

from .students import student_with

TOLERANCE = {torch.bfloat16: 0.06, torch.float16: 0.012, torch.float64: 1e-5}  # of the largest score
CASTS = {
    "half": (lambda model: model.half(), torch.float16),
    "bfloat16": (lambda model: model.to(torch.bfloat16), torch.bfloat16),
    "double": (lambda model: model.double(), torch.float64),
}


def _scores(model: RabtrieverModel) -> Tensor:
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    assert queries.dtype == documents.dtype == torch.float32
    scores = model.similarity(queries, documents)
    assert scores.dtype == torch.float32
    return scores


def _agrees(found: Tensor, expected: Tensor, tolerance: float) -> None:
    allowed = tolerance * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=allowed, rtol=0)
    best = expected.gather(1, found.argmax(1, keepdim=True))[:, 0]
    assert (expected.amax(1) - best <= 2 * allowed).all()


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("settings", [{"embedding_dim": 17}, {"document_map": False, "feature_poolings": ["last"]}])
def test_a_cast_student_scores_in_fp32(reranker: GenerativeRerankerModel, cast: str, settings: dict[str, Any]) -> None:
    student = student_with(reranker, **settings)
    expected, before = _scores(student), encoder_fingerprint(student)
    change, dtype = CASTS[cast]
    changed = change(student)
    assert changed.backbone.dtype == dtype
    assert {weight.dtype for weight in changed.predictor.parameters()} == {torch.float32}
    _agrees(_scores(changed), expected, TOLERANCE[dtype])
    assert same_encoder(encoder_fingerprint(changed), before)
    torch.testing.assert_close(_scores(changed.float()), expected, atol=TOLERANCE[dtype] * 10, rtol=0)


@pytest.mark.parametrize("cast", CASTS)
def test_a_cast_teacher_scores_in_fp32(reranker: GenerativeRerankerModel, cast: str) -> None:
    expected = reranker.score(QUERIES, DOCUMENTS)
    change, dtype = CASTS[cast]
    found = change(reranker).score(QUERIES, DOCUMENTS)
    assert found.dtype == torch.float32
    _agrees(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_projections_and_scores_in_fp32(student: RabtrieverModel, dtype: torch.dtype) -> None:
    expected = _scores(student)
    with torch.autocast("cpu", dtype=dtype):
        found = _scores(student)
        ranked = student.rank(QUERIES[0], DOCUMENTS)
    _agrees(found, expected, TOLERANCE[dtype])
    scores = torch.tensor([hit["score"] for hit in ranked])
    assert (scores != scores.to(dtype).float()).any()  # in fp32, not rounded


def test_autocast_does_not_round_an_exact_search() -> None:
    torch.manual_seed(0)
    vectors, queries = torch.randn(500, 64), torch.randn(3, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, _ = ExactIndex(vectors).search(queries, 5)
    torch.testing.assert_close(scores, (queries @ vectors.T).topk(5).values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_student_loaded_in_another_type_is_the_same_encoder(
    student: RabtrieverModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    student.save_pretrained(tmp_path)
    loaded = RabtrieverModel.from_pretrained(tmp_path, dtype=dtype)
    assert {weight.dtype for weight in loaded.predictor.parameters()} == {torch.float32}
    _agrees(_scores(loaded), _scores(student), TOLERANCE[dtype])
    assert same_encoder(encoder_fingerprint(loaded), encoder_fingerprint(student))
    loaded.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.backbone.dtype == dtype
    torch.testing.assert_close(_scores(again), _scores(loaded), atol=1e-5, rtol=0)


def _roll_vocabulary(student: RabtrieverModel) -> None:
    weight = student.backbone.get_input_embeddings().weight
    weight.data.copy_(weight.data.roll(1, 0))


CHANGES: dict[str, Callable[[RabtrieverModel], object]] = {
    "a matrix of the backbone": lambda s: s.backbone.layers[1].mlp.up_proj.weight.data.normal_(std=0.2),
    "a norm of the backbone": lambda s: s.backbone.norm.weight.data.mul_(1.1),
    "rows of the vocabulary": _roll_vocabulary,
    "the predictor": lambda s: s.predictor.document_map.weight.data[0, 0].add_(1e-3),
    "the order of the poolings": lambda s: setattr(s.config, "feature_poolings", ["mean", "last"]),
    "the prompt": lambda s: setattr(s, "processor", s.processor.replace(instruction="Another one:")),
    "a limit of the prompt": lambda s: setattr(s, "processor", s.processor.replace(max_document_length=15)),
    "the rotation": lambda s: s.config.text_config.rope_parameters.update(rope_theta=5e5),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_vectors_changes_the_identity(student: RabtrieverModel, what: str) -> None:
    before = encoder_fingerprint(student)
    CHANGES[what](student)
    assert not same_encoder(encoder_fingerprint(student), before)


@pytest.mark.parametrize(("setting", "value"), [("use_parallel_residual", False), ("residual_multiplier", 0.5)])
def test_any_setting_that_may_change_vectors_changes_the_identity(
    make_reranker: Callable[..., GenerativeRerankerModel], setting: str, value: Any
) -> None:
    student = student_with(make_reranker("gpt_neox"), embedding_dim=24)
    before = encoder_fingerprint(student)
    setattr(student.config.text_config, setting, value)
    assert not same_encoder(encoder_fingerprint(student), before)


def test_settings_of_training_and_bookkeeping_keep_the_identity(student: RabtrieverModel) -> None:
    before = encoder_fingerprint(student)
    for setting, value in (("attention_dropout", 0.1), ("use_cache", False), ("initializer_range", 0.3)):
        setattr(student.config.text_config, setting, value)
    assert encoder_fingerprint(student) == before


def test_a_rotated_vocabulary_changes_the_identity(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    before = encoder_fingerprint(RabtrieverModel.from_pretrained(tmp_path))
    assert before == encoder_fingerprint(student)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":', '"~swap":').replace('"b":', '"a":').replace('"~swap":', '"b":'))
    assert not same_encoder(encoder_fingerprint(RabtrieverModel.from_pretrained(tmp_path)), before)


@pytest.mark.parametrize("other", ["", "0" * 16, "0" * 16 + "-" + "0" * 68, "x-y-z", "not one"])
def test_other_fingerprints_are_other_encoders(student: RabtrieverModel, other: str) -> None:
    assert not same_encoder(encoder_fingerprint(student), other)
    assert same_encoder(other, other)


@pytest.mark.parametrize(("setting", "tolerance"), [("load_in_8bit", 0.15), ("load_in_4bit", 0.7)])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_quantised_models_score_in_fp32(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path, setting: str, tolerance: float
) -> None:
    teacher = make_reranker(hidden_size=64, intermediate_size=128)
    student = student_with(teacher, embedding_dim=24)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(tmp_path / name)
    quantised = {"quantization_config": BitsAndBytesConfig(**{setting: True})}
    loaded = RabtrieverModel.from_pretrained(tmp_path / "student", **quantised)
    loaded.save_pretrained(tmp_path / "quantised")
    _agrees(_scores(load_model(tmp_path / "quantised")), _scores(loaded), 1e-4)
    assert loaded.is_quantized and not loaded.backbone.layers[0].mlp.up_proj.weight.is_floating_point()
    assert {weight.dtype for weight in loaded.predictor.parameters()} == {torch.float32}
    before = encoder_fingerprint(loaded)
    _agrees(_scores(loaded), _scores(student), tolerance)
    assert encoder_fingerprint(loaded) == before
    reranker = GenerativeRerankerModel.from_pretrained(tmp_path / "teacher", **quantised)
    found = reranker.score(QUERIES, DOCUMENTS)
    assert found.dtype == torch.float32
    _agrees(found, teacher.score(QUERIES, DOCUMENTS), tolerance)
