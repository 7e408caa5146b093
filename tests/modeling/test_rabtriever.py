"""The student: its vectors from their definition, an inner product of them, saving, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

from .students import student_with

MakeReranker = Callable[..., GenerativeRerankerModel]
SHAPES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "small k": {"embedding_dim": 8},
    "large k, few units": {"embedding_dim": 120, "query_hidden_size": 7},
    "mean alone": {"feature_poolings": ["mean"]},
    "all poolings": {"feature_poolings": ["mean", "first", "last"], "embedding_dim": 5},
    "no document map": {"document_map": False},
    "the paper's": {"document_map": False, "feature_poolings": ["last"], "query_hidden_size": 32},
}


def naive_features(student: RabtrieverModel, ids: list[int]) -> Tensor:
    """First, last and mean of the last layer's states of one text by itself, joined as the configuration says."""
    states = student.backbone(torch.tensor([ids])).last_hidden_state[0]
    parts = {"first": states[0], "last": states[-1], "mean": sum(states) / len(states)}
    return torch.cat([parts[name] for name in student.config.feature_poolings])


def naive_query(student: RabtrieverModel, features: Tensor) -> Tensor:
    hidden, output = student.predictor.query_hidden, student.predictor.query_output
    units = [max(float(row @ features + bias), 0.0) for row, bias in zip(hidden.weight, hidden.bias, strict=True)]
    return torch.stack([row @ torch.tensor(units) + bias for row, bias in zip(output.weight, output.bias, strict=True)])


def naive_document(student: RabtrieverModel, features: Tensor) -> Tensor:
    if not student.config.document_map:
        return features
    layer = student.predictor.document_map
    return torch.stack([row @ features + bias for row, bias in zip(layer.weight, layer.bias, strict=True)])


def token_ids(student: RabtrieverModel, queries: list[str] | None, documents: list[str] | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for side, texts in (("query", queries), ("document", documents)):
        if texts is not None:
            batch = student.processor(**{side: texts})
            inputs |= {f"{side}_{name}": tensor for name, tensor in batch.items()}
    return inputs


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_vectors_and_scores_are_those_of_the_formula(reranker: GenerativeRerankerModel, shape: dict[str, Any]) -> None:
    """`u = W relu(V x_Q + b) + c`, `v = A x_D + a`, and the score `<u, v>`."""
    student = student_with(reranker, **shape)
    ids = student.processor.query_ids(QUERIES), student.processor.document_ids(DOCUMENTS)
    queries = torch.stack([naive_query(student, naive_features(student, row)) for row in ids[0]])
    documents = torch.stack([naive_document(student, naive_features(student, row)) for row in ids[1]])
    assert queries.shape == (3, student.config.embedding_dim) and documents.shape == (4, student.config.embedding_dim)
    torch.testing.assert_close(student.encode_query(QUERIES), queries, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(student.encode_document(DOCUMENTS), documents, atol=1e-5, rtol=1e-4)
    expected = torch.tensor([[float(sum(u * v)) for v in documents] for u in queries])
    assert expected.std() > 0.1
    scores = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test_token_ids_give_the_scores_of_their_texts(student: RabtrieverModel) -> None:
    queries, documents = [q for q in QUERIES for _ in DOCUMENTS], DOCUMENTS * len(QUERIES)
    output = student(**token_ids(student, queries, documents))
    expected = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    torch.testing.assert_close(output.scores.view(3, 4), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.query_embeds, student.encode_query(queries), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.document_embeds, student.encode_document(documents), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["query", "document"])
def test_one_side_alone_has_no_scores(student: RabtrieverModel, side: str) -> None:
    texts, encode = {
        "query": (QUERIES, student.encode_query),
        "document": (DOCUMENTS, student.encode_document),
    }[side]
    output = student(**token_ids(student, *((texts, None) if side == "query" else (None, texts))))
    assert list(output) == [f"{side}_embeds"]
    torch.testing.assert_close(output[f"{side}_embeds"], encode(texts), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_of_either_side_is_not_read(make_reranker: MakeReranker, family: str, side: str) -> None:
    student = student_with(make_reranker(family), feature_poolings=["first", "last", "mean"])
    rows = student.processor.document_ids(DOCUMENTS)
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), 7), torch.zeros(len(rows), longest, dtype=torch.long)
    for row, text in enumerate(rows):
        place = slice(longest - len(text), None) if side == "left" else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    assert not mask.all()
    expected = torch.stack([naive_features(student, text) for text in rows])
    torch.testing.assert_close(student.pool(ids, mask), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(student.pool(torch.tensor([rows[2]])), expected[2:3], atol=1e-4, rtol=1e-4)


def test_fresh_matrices_have_unit_gain_at_any_width(text_config: Callable[..., Any]) -> None:
    for k in (8, 4096):
        config = RabtrieverConfig(text_config=text_config().to_dict(), embedding_dim=k, query_hidden_size=512)
        predictor = RabtrieverModel(config).predictor
        for name in ("query_hidden", "query_output", "document_map"):
            layer = getattr(predictor, name)
            assert layer.weight.std().item() == pytest.approx(layer.weight.shape[1] ** -0.5, rel=0.15), name
            assert not layer.bias.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_do_not_depend_on_the_batch(make_reranker: MakeReranker, family: str) -> None:
    student = student_with(make_reranker(family))
    assert student.get_input_embeddings() is student.backbone.get_input_embeddings()
    for encode, texts in ((student.encode_query, QUERIES), (student.encode_document, DOCUMENTS)):
        alone = torch.cat([encode(text) for text in texts])
        assert alone.shape == (len(texts), 32) and alone.dtype == torch.float32
        torch.testing.assert_close(encode(texts), alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encode(texts, token_budget=1), alone, atol=1e-4, rtol=1e-4)


def test_rank_agrees_with_similarity(student: RabtrieverModel) -> None:
    scores = student.similarity(student.encode_query(QUERIES[0]), student.encode_document(DOCUMENTS))[0]
    hits = student.rank(QUERIES[0], DOCUMENTS, top_k=2)
    assert [hit["corpus_id"] for hit in hits] == scores.argsort(descending=True)[:2].tolist()


def test_half_precision_backbone_keeps_the_predictor_in_fp32(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    half = RabtrieverModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.backbone.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.predictor.parameters()} == {torch.float32}
    vectors = half.encode_document(DOCUMENTS)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, student.encode_document(DOCUMENTS), atol=0.1, rtol=0.1)


def test_a_saved_student_is_a_backbone_and_three_matrices(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    loaded = RabtrieverModel.from_pretrained(tmp_path)
    assert {name for name in loaded.state_dict() if not name.startswith("backbone.")} == {
        f"predictor.{layer}.{part}"
        for layer in ("query_hidden", "query_output", "document_map")
        for part in ("weight", "bias")
    }
    assert not any("lm_head" in name for name in loaded.state_dict())
    torch.testing.assert_close(loaded.encode_query(QUERIES), student.encode_query(QUERIES))
    torch.testing.assert_close(loaded.encode_document(DOCUMENTS), student.encode_document(DOCUMENTS))


def test_broken_weights_are_not_ranked_with(student: RabtrieverModel) -> None:
    student.predictor.query_output.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="a score is NaN"):
        student.rank(QUERIES[0], DOCUMENTS)


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
        (
            lambda m: m.similarity(torch.ones(2, 3).numpy(), torch.ones(2, 3)),
            "query_embeds is of type ndarray; accepted",
        ),
        (lambda m: m.similarity(torch.ones(2, 3), [[1, 2, 3]]), "document_embeds is of type list; accepted: a tensor"),
        (lambda m: m(), "query_input_ids and document_input_ids are None; accepted: one of them or both"),
        (lambda m: m(**token_ids(m, QUERIES, DOCUMENTS)), "3 queries and 4 documents; accepted: as many of each"),
        (lambda m: m(**token_ids(m, QUERIES, DOCUMENTS[:1])), "3 queries and 1 documents; accepted: as many of each"),
        (lambda m: m(torch.tensor([[5]]), torch.tensor([[0]])), "a row without a single token"),
    ],
)
def test_bad_calls_are_refused(student: RabtrieverModel, call: Callable[[RabtrieverModel], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(student)
