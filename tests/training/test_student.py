"""The student while it trains: what its predictor computes, and that the served student ranks alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.features import read_features
from modeling_rabtriever.distillation.student import DAMPING, TrainingStudent
from tests.conftest import DOCUMENTS, QUERIES, fresh_student

HADAMARD = {"embedding_dim": 24}
PAPER = {"predictor_type": "paper"}
FORMS = pytest.mark.parametrize(
    ("shape", "whitens"),
    [(HADAMARD, False), (HADAMARD, True), (PAPER, False)],
    ids=["hadamard", "hadamard-whitened", "paper"],
)
SHAPES = pytest.mark.parametrize("shape", [HADAMARD, PAPER], ids=["hadamard", "paper"])
PLACES = torch.tensor([[0, 2], [3, 1], [2, 2]])  # the candidates of each query


def trained(reranker: GenerativeRerankerModel, shape: dict[str, Any]) -> TrainingStudent:
    """A student with numbers in all weights, also in those that start at zero."""
    torch.manual_seed(3)
    student = fresh_student(reranker, **shape)
    for weight in student.predictor.parameters():
        weight.data.normal_(std=0.3)
    return student


def features(student: RabtrieverModel) -> tuple[Tensor, Tensor]:
    return read_features(student, "query", QUERIES), read_features(student, "document", DOCUMENTS)


def linear(weights: dict[str, Tensor], name: str, numbers: list[float]) -> list[float]:
    """`weight @ numbers + bias`, number by number."""
    rows = weights[f"{name}.weight"].tolist()
    biases = weights[f"{name}.bias"].tolist() if f"{name}.bias" in weights else [0.0] * len(rows)
    return [sum(w * x for w, x in zip(row, numbers, strict=True)) + b for row, b in zip(rows, biases, strict=True)]


def naive_state(weights: dict[str, Tensor], query: list[float], document: list[float], paper: bool) -> list[float]:
    """`h_hat` of one pair, from the definition: `B(f(x_Q) * A x_D) + shift(x_Q)`; the paper's is `f(x_Q) * x_D`."""
    hidden = [max(unit, 0.0) for unit in linear(weights, "query_hidden", query)]
    factors = linear(weights, "query_output", hidden)
    if paper:
        return [f * x for f, x in zip(factors, document, strict=True)]
    product = [f * v for f, v in zip(factors, linear(weights, "document_map", document), strict=True)]
    moved = zip(linear(weights, "output_map", product), linear(weights, "shift", query), strict=True)
    return [state + shift for state, shift in moved]


@SHAPES
def test_the_predicted_state_is_a_product_of_both_sides(
    reranker: GenerativeRerankerModel, shape: dict[str, Any]
) -> None:
    student = trained(reranker, shape)
    queries, documents = features(student)
    found = student(queries, documents, PLACES)
    weights = dict(student.predictor.state_dict())
    direction = reranker.answer_direction.tolist()
    for row, candidates in enumerate(PLACES.tolist()):
        for place, document in enumerate(candidates):
            state = naive_state(weights, queries[row].tolist(), documents[document].tolist(), shape == PAPER)
            assert found.hidden_state[row, place].tolist() == pytest.approx(state, rel=1e-4, abs=1e-4)
            log_odds = sum(w * h for w, h in zip(direction, state, strict=True))
            assert found.logits[row, place].item() == pytest.approx(log_odds, rel=1e-4, abs=1e-4)


@SHAPES
def test_vectors_are_the_two_sides_of_the_product(reranker: GenerativeRerankerModel, shape: dict[str, Any]) -> None:
    """`u = (B^T w) * f(x_Q)`, `v = A x_D`."""
    student = trained(reranker, shape)
    queries, documents = features(student)
    weights, direction = dict(student.predictor.state_dict()), reranker.answer_direction
    scale = direction if shape == PAPER else weights["output_map.weight"].T @ direction
    for row, vector in enumerate(student.predictor.encode_query(queries)):
        hidden = [max(unit, 0.0) for unit in linear(weights, "query_hidden", queries[row].tolist())]
        factors = linear(weights, "query_output", hidden)
        expected = [s * f for s, f in zip(scale.tolist(), factors, strict=True)]
        assert vector.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for row, vector in enumerate(student.predictor.encode_document(documents)):
        own = documents[row].tolist()
        expected = own if shape == PAPER else linear(weights, "document_map", own)
        assert vector.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@FORMS
def test_log_odds_are_scores_and_a_number_per_query(
    reranker: GenerativeRerankerModel, shape: dict[str, Any], whitens: bool
) -> None:
    student = trained(reranker, shape)
    queries, documents = features(student)
    if whitens:
        student.predictor.fit_whitening(queries, documents)
    found = student(queries, documents, torch.arange(len(DOCUMENTS)).expand(len(QUERIES), -1))
    torch.testing.assert_close(found.scores, found.query_embeds @ found.document_embeds.T)
    apart = found.logits - found.scores
    torch.testing.assert_close(apart, apart[:, :1].expand_as(apart), atol=1e-4, rtol=1e-4)
    if shape == PAPER:
        torch.testing.assert_close(found.logits, found.scores, atol=1e-4, rtol=1e-4)


@FORMS
def test_the_served_student_scores_as_the_one_that_trains(
    reranker: GenerativeRerankerModel, shape: dict[str, Any], whitens: bool, tmp_path: Path
) -> None:
    student = trained(reranker, shape)
    queries, documents = features(student)
    if whitens:
        student.predictor.fit_whitening(queries, documents)
    vectors = student.predictor.encode_query(queries), student.predictor.encode_document(documents)
    served = student.served()
    served.save_pretrained(tmp_path)
    for one in (served, RabtrieverModel.from_pretrained(tmp_path)):
        assert type(one) is RabtrieverModel and not one.training
        matrices = {"query_hidden", "query_output"} | (set() if shape == PAPER else {"document_map"})
        assert {name.partition(".")[0] for name in one.predictor.state_dict()} == matrices
        torch.testing.assert_close(one.encode_query(QUERIES), vectors[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.encode_document(DOCUMENTS), vectors[1], atol=1e-4, rtol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["RabtrieverModel"]


def test_whitening_decorrelates(reranker: GenerativeRerankerModel) -> None:
    """Its outputs have mean 0 and no covariance; a direction of deviation `s` keeps `s / (s + DAMPING * s_max)`."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(64, 64, generator=generator) * torch.logspace(-2, 1, 64)
    sides = [torch.randn(500, 64, generator=generator) @ mixing + 5 for _ in range(2)]
    predictor = fresh_student(reranker, embedding_dim=24).predictor
    predictor.fit_whitening(*sides)
    for whitening, side in zip((predictor.query_whitening, predictor.document_whitening), sides, strict=True):
        out = whitening(side).double()
        spread, axes = torch.linalg.eigh(torch.cov(side.double().T, correction=0))
        spread = spread.clamp(min=0).sqrt()
        kept = (spread / (spread + DAMPING * spread.max())).square()
        torch.testing.assert_close(out.mean(0), torch.zeros_like(kept), atol=1e-3, rtol=0)
        covariance = axes.T @ torch.cov(out.T, correction=0) @ axes
        torch.testing.assert_close(covariance, torch.diag(kept), atol=1e-2, rtol=0)
        assert not any(weight.requires_grad for weight in whitening.parameters())


def test_texts_that_do_not_differ_cannot_be_whitened(reranker: GenerativeRerankerModel) -> None:
    student = fresh_student(reranker, embedding_dim=24)
    queries, documents = features(student)
    with pytest.raises(ValueError, match="all 5 queries have the same features; accepted: texts that differ"):
        student.predictor.fit_whitening(queries[:1].expand(5, -1), documents)
    with pytest.raises(ValueError, match="all 4 documents have the same features"):
        student.predictor.fit_whitening(queries, documents[:1].expand(4, -1))


def test_the_papers_features_are_not_whitened(reranker: GenerativeRerankerModel) -> None:
    """A document's vector is its features as they are: nothing would take the whitening over."""
    student = fresh_student(reranker, **PAPER)
    assert not student.whitens
    with pytest.raises(ValueError, match="document_map is false; accepted: true"):
        student.predictor.fit_whitening(*features(student))


def test_the_papers_predictor_needs_states_as_wide_as_its_features(reranker: GenerativeRerankerModel) -> None:
    config = fresh_student(reranker, **PAPER).config
    with pytest.raises(ValueError, match="the teacher's states have 48 numbers; accepted without document_map: 32"):
        TrainingStudent(config, torch.ones(48))


def test_a_frozen_encoder_stays_in_evaluation_mode(reranker: GenerativeRerankerModel) -> None:
    student = fresh_student(reranker).train()
    assert student.predictor.training and not student.backbone.training
    student.backbone.requires_grad_(True)
    assert student.train().backbone.training and not student.eval().backbone.training


def test_the_predictor_stays_in_full_precision(reranker: GenerativeRerankerModel) -> None:
    student = trained(reranker, HADAMARD)
    student.predictor.fit_whitening(*features(student))
    student.to(torch.bfloat16)
    assert student.backbone.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in student.predictor.state_dict().values()} == {torch.float32}
    found = student(*features(student), PLACES)
    assert {value.dtype for value in found} == {torch.float32}
