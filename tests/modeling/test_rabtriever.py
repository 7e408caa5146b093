"""The student: an exact inner product, its predictor forms, whitening, saving, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

MakeReranker = Callable[..., GenerativeRerankerModel]
PREDICTORS: dict[str, dict[str, Any]] = {
    "paper": {"predictor_type": "paper", "feature_poolings": ["last"]},
    "hadamard": {},
    "small k": {"embedding_dim": 8},
    "large k, heads": {"embedding_dim": 120, "num_heads": 5, "predictor_hidden_size": 7},
    "document prior": {"embedding_dim": 25, "num_heads": 3, "document_prior": True},
    "shared words": {"embedding_dim": 24, "num_heads": 2, "shared_dim": 9, "document_prior": True},
    "mean alone": {"feature_poolings": ["mean"]},
    "anchors": {
        "embedding_dim": 24,
        "shared_dim": 8,
        "query_anchors": [[5, 6], [8], [9, 9]],
        "document_anchors": [[7, 8]],
    },
    "several layers": {"feature_layers": [0, 1, -1], "embedding_dim": 16},
}


def _pairs(model: Any) -> dict[str, torch.Tensor]:
    batch = model.processor(query=[q for q in QUERIES for _ in DOCUMENTS])
    other = model.processor(document=DOCUMENTS * len(QUERIES))
    return {
        "query_input_ids": batch["input_ids"],
        "query_attention_mask": batch["attention_mask"],
        "document_input_ids": other["input_ids"],
        "document_attention_mask": other["attention_mask"],
    }


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=PREDICTORS.keys())
def test_score_is_the_inner_product(reranker: GenerativeRerankerModel, predictor: dict[str, Any]) -> None:
    """`<u, v> = (w_T - w_F) . h_hat` up to a number per query, with `h_hat` computed by itself."""
    torch.manual_seed(0)
    student = RabtrieverModel.from_teacher(reranker, **predictor)
    scores = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    output = student(**_pairs(student))
    head = reranker.get_output_embeddings().weight
    direction = head[reranker.config.true_token_id] - head[reranker.config.false_token_id]
    predicted = (output.hidden_state @ direction).view(len(QUERIES), len(DOCUMENTS))
    difference = predicted - scores
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.logits.view_as(predicted), predicted, atol=1e-5, rtol=1e-5)
    dots = (output.query_embeds * output.document_embeds).sum(-1).view_as(scores)
    torch.testing.assert_close(dots, scores, atol=1e-5, rtol=1e-4)
    if predictor.get("predictor_type") == "paper":
        assert difference.abs().max() < 1e-4  # no shift: equal outright


def test_paper_predictor_is_equation_12(reranker: GenerativeRerankerModel) -> None:
    student = RabtrieverModel.from_teacher(reranker, **PREDICTORS["paper"])
    lm = reranker.backbone.base_model
    e_q = lm(**student.processor(query=QUERIES[0])).last_hidden_state[:, -1]
    e_d = lm(**student.processor(document=DOCUMENTS[0])).last_hidden_state[:, -1]
    layers = student.predictor
    hidden = torch.relu(e_q @ layers.query_hidden.weight.T + layers.query_hidden.bias)
    mlp = hidden @ layers.query_output.weight[:, :, 0].T + layers.query_output.bias
    output = student(query_features=e_q, document_features=e_d)
    torch.testing.assert_close(output.hidden_state, mlp * e_d, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in student.parameters() if p.requires_grad) == 2 * (32 * 32 + 32)


def test_fresh_predictor_has_unit_gain_at_any_width(reranker: GenerativeRerankerModel) -> None:
    for k in (8, 4096):
        student = RabtrieverModel.from_teacher(reranker, embedding_dim=k, predictor_hidden_size=512)
        for name in ("query_hidden", "query_output", "document_map", "output_map", "shift"):
            weight = getattr(student.predictor, name).weight.flatten(1)
            assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.15), name


def test_heads_are_separate_query_mlps(reranker: GenerativeRerankerModel) -> None:
    """Head 1 of 2 reads nothing of head 2's hidden units."""
    student = RabtrieverModel.from_teacher(reranker, embedding_dim=8, num_heads=2, predictor_hidden_size=5)
    features = torch.randn(3, student.config.document_feature_size)
    before = student.predictor.query_factors(features)
    student.predictor.query_hidden.weight.data[5:] = 0
    student.predictor.query_hidden.bias.data[5:] = 0
    after = student.predictor.query_factors(features)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def test_features_are_last_token_and_mean_after_the_final_norm(student: RabtrieverModel) -> None:
    states = student.backbone(**student.processor(document=DOCUMENTS[1])).last_hidden_state[0]
    expected = torch.cat([states[-1], states.mean(0)])
    torch.testing.assert_close(student.document_features(DOCUMENTS)[1], expected, atol=1e-5, rtol=1e-5)


def test_layers_are_those_of_output_hidden_states(reranker: GenerativeRerankerModel) -> None:
    student = RabtrieverModel.from_teacher(reranker, feature_layers=[0, 1, 2, -1], feature_poolings=["last"])
    batch = student.processor(query=QUERIES[0])
    hidden_states = student.backbone(**batch, output_hidden_states=True).hidden_states
    expected = torch.cat([hidden_states[layer][0, -1] for layer in (0, 1, 2, 2)])
    torch.testing.assert_close(student.query_features(QUERIES[0])[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_do_not_depend_on_the_batch(make_reranker: MakeReranker, family: str) -> None:
    student = RabtrieverModel.from_teacher(make_reranker(family))
    for encode, texts in ((student.encode_query, QUERIES), (student.encode_document, DOCUMENTS)):
        alone = torch.cat([encode(text) for text in texts])
        assert alone.shape == (len(texts), 32) and alone.dtype == torch.float32
        torch.testing.assert_close(encode(texts), alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encode(texts, token_budget=1), alone, atol=1e-4, rtol=1e-4)


def test_candidate_lists_equal_pairs(student: RabtrieverModel) -> None:
    queries, documents = student.query_features(QUERIES), student.document_features(DOCUMENTS)
    lists = student(query_features=queries, document_features=documents.expand(len(QUERIES), -1, -1))
    pairs = student(**_pairs(student))
    assert lists.logits.shape == (3, 4) and lists.hidden_state.shape == (3, 4, 32)
    torch.testing.assert_close(lists.logits.flatten(), pairs.logits, atol=1e-5, rtol=1e-5)


def test_rank_agrees_with_similarity(student: RabtrieverModel) -> None:
    scores = student.similarity(student.encode_query(QUERIES[0]), student.encode_document(DOCUMENTS))[0]
    hits = student.rank(QUERIES[0], DOCUMENTS, top_k=2)
    assert [hit["corpus_id"] for hit in hits] == scores.argsort(descending=True)[:2].tolist()


def test_only_the_predictor_trains(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    for model in (student, RabtrieverModel.from_pretrained(tmp_path)):
        trained = {name.partition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
        assert trained == {"predictor"}
        assert not model.train().backbone.training


def test_half_precision_backbone_keeps_the_predictor_in_fp32(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    half = RabtrieverModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.backbone.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.predictor.parameters()} == {torch.float32}
    assert half.answer_rows.dtype == torch.float32
    vectors = half.encode_document(DOCUMENTS)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, student.encode_document(DOCUMENTS), atol=0.1, rtol=0.1)


def test_student_needs_no_teacher_once_saved(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    expected = student.rank(QUERIES[0], DOCUMENTS)
    student.save_pretrained(tmp_path)
    loaded = RabtrieverModel.from_pretrained(tmp_path)
    assert not any("lm_head" in name for name in loaded.state_dict())
    assert [hit["corpus_id"] for hit in loaded.rank(QUERIES[0], DOCUMENTS)] == [hit["corpus_id"] for hit in expected]
    torch.testing.assert_close(loaded.answer_rows, reranker.answer_rows)


def test_whitened_features_have_one_scale(student: RabtrieverModel) -> None:
    torch.manual_seed(0)
    raw = torch.randn(500, student.config.document_feature_size) @ torch.randn(64, 64) + 10 * torch.randn(64)
    student.predictor.fit_whitening(raw, raw, damping=1e-6)
    white = student.predictor.whiten_document(raw)
    torch.testing.assert_close(white.mean(0), torch.zeros(64), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(64), atol=1e-2, rtol=0)
    assert not any(weight.requires_grad for weight in student.predictor.query_whitening.parameters())


def test_folding_the_whitening_keeps_the_scores(student: RabtrieverModel, tmp_path: Path) -> None:
    plain = student.query_features(QUERIES)
    student.predictor.fit_whitening(plain, student.document_features(DOCUMENTS), damping=0.1)
    assert not torch.allclose(student.query_features(QUERIES), plain)
    student.save_pretrained(tmp_path)  # a checkpoint in the middle of training scores as the model does
    before = student(**_pairs(student))
    loaded = RabtrieverModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**_pairs(loaded)).hidden_state, before.hidden_state, atol=1e-5, rtol=1e-5)
    student.predictor.fold_whitening()
    torch.testing.assert_close(student(**_pairs(student)).hidden_state, before.hidden_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(student.query_features(QUERIES), plain)
    assert not student.config.feature_whitening
    assert not any("whitening" in name for name in student.state_dict())


def test_unfit_whitening_is_refused(reranker: GenerativeRerankerModel, student: RabtrieverModel) -> None:
    raw = student.query_features(QUERIES)
    with pytest.raises(ValueError, match="damping is 0; accepted"):
        student.predictor.fit_whitening(raw, raw, 0)
    with pytest.raises(ValueError, match="pooled_documents: all 2 texts have the same features"):
        student.predictor.fit_whitening(raw, raw[:1].expand(2, -1), 0.1)
    student.predictor.fit_whitening(raw, raw, 0.1)
    with pytest.raises(ValueError, match="whitened already"):
        student.predictor.fit_whitening(raw, raw, 0.1)
    paper = RabtrieverModel.from_teacher(reranker, **PREDICTORS["paper"])
    with pytest.raises(ValueError, match='predictor_type is "paper"'):
        paper.predictor.fit_whitening(raw, raw, 0.1)


def test_model_without_its_teachers_rows_does_not_rank(student: RabtrieverModel) -> None:
    settings = student.config.to_dict()
    orphan = RabtrieverModel(RabtrieverConfig(**settings))
    orphan.processor = student.processor
    with pytest.raises(ValueError, match="a score is NaN"):
        orphan.rank(QUERIES[0], DOCUMENTS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode_query([]), "queries is empty"),
        (lambda m: m.encode_document(["a", ""]), "documents.1. is ''"),
        (lambda m: m.encode_document([None]), "documents.0. is None"),
        (lambda m: m.rank("a", []), "documents is empty"),
        (lambda m: m.rank("a", ["b"], top_k=-1), "top_k is -1; accepted"),
        (lambda m: m.similarity(torch.ones(2, 3), torch.ones(2, 4)), r"accepted: \(n, k\) and \(m, k\)"),
        (lambda m: m.similarity(torch.ones(3), torch.ones(2, 3)), r"accepted: \(n, k\) and \(m, k\)"),
        (lambda m: m(query_features=torch.ones(1, 64)), "document_input_ids and document_features: accepted"),
        (
            lambda m: m(query_features=torch.ones(1, 64), document_features=torch.ones(2, 64)),
            r"accepted: \(n, 64\) with \(n, 64\) or \(n, c, 64\)",
        ),
    ],
)
def test_bad_calls_are_refused(student: RabtrieverModel, call: Callable[[RabtrieverModel], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(student)
