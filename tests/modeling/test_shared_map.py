"""Numbers that compare the words of both sides by one shared map."""

from pathlib import Path
from typing import Any

import pytest
import torch
from modeling_rabtriever.modeling_predictor import RabtrieverPredictor
from torch import Tensor
from transformers import AutoConfig

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel
from tests.conftest import DOCUMENTS, QUERIES

SHARED: dict[str, Any] = {"embedding_dim": 24, "num_heads": 2, "shared_dim": 8}


@pytest.fixture
def shared_student(reranker: GenerativeRerankerModel) -> RabtrieverModel:
    torch.manual_seed(0)
    return RabtrieverModel.from_teacher(reranker, **SHARED)


def mean_embedding(student: RabtrieverModel, **side: str) -> Tensor:
    return student.get_input_embeddings()(student.processor(**side)["input_ids"][0]).mean(0)


def test_the_shared_numbers_are_an_inner_product_of_mapped_words(shared_student: RabtrieverModel) -> None:
    """The score is that of the other numbers plus `sum_r scale_r / r (C z_Q)_r (C z_D)_r`, from the definition."""
    shared = shared_student.predictor.shared
    shared.scale.data.uniform_(-1, 2)
    scores = shared_student.similarity(shared_student.encode_query(QUERIES), shared_student.encode_document(DOCUMENTS))
    queries = [mean_embedding(shared_student, query=text) for text in QUERIES]
    documents = [mean_embedding(shared_student, document=text) for text in DOCUMENTS]
    expected = [
        [
            sum(
                (shared.scale[row] / 8 * (shared.map.weight[row] @ query) * (shared.map.weight[row] @ document)).item()
                for row in range(8)
            )
            for document in documents
        ]
        for query in queries
    ]
    shared.scale.data.zero_()
    others = shared_student.similarity(shared_student.encode_query(QUERIES), shared_student.encode_document(DOCUMENTS))
    torch.testing.assert_close(scores - others, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_both_sides_are_whitened_by_one_matrix_up_to_a_number(shared_student: RabtrieverModel) -> None:
    predictor, states = shared_student.predictor, shared_student.config.state_size
    raw = [shared_student.query_features(QUERIES), shared_student.document_features(DOCUMENTS)]
    predictor.fit_whitening(*raw, damping=0.1)
    white = [predictor.whiten_query(raw[0])[:, states:], predictor.whiten_document(raw[1])[:, states:]]
    for words in white:
        torch.testing.assert_close(words.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
        assert words.norm(dim=1).mean().item() == pytest.approx(32**0.5, rel=1e-3)
    query, document = (
        layer.weight[states:, states:] for layer in (predictor.query_whitening, predictor.document_whitening)
    )
    torch.testing.assert_close(query / query.norm(), document / document.norm(), atol=1e-6, rtol=1e-4)
    for layer in (predictor.query_whitening, predictor.document_whitening):
        assert not layer.weight[:states, states:].any() and not layer.weight[states:, :states].any()


def test_folding_keeps_the_scores_and_saving_the_model(shared_student: RabtrieverModel, tmp_path: Path) -> None:
    raw = [shared_student.query_features(QUERIES), shared_student.document_features(DOCUMENTS)]
    shared_student.predictor.fit_whitening(*raw, damping=0.1)
    shared_student.predictor.shared.scale.data.uniform_(1, 2)

    def scores(model: RabtrieverModel) -> Tensor:
        return model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))

    before = scores(shared_student)
    shared_student.predictor.fold_whitening()
    torch.testing.assert_close(scores(shared_student), before, atol=1e-4, rtol=1e-4)
    assert shared_student.predictor.shared.query_offset.abs().max() > 0
    shared_student.save_pretrained(tmp_path)
    loaded = RabtrieverModel.from_pretrained(tmp_path)
    torch.testing.assert_close(scores(loaded), scores(shared_student))
    trained = [name for name, weight in loaded.predictor.shared.named_parameters() if weight.requires_grad]
    assert sorted(trained) == ["map.weight", "scale"]


def test_texts_of_the_same_words_are_refused(shared_student: RabtrieverModel) -> None:
    states, raw = shared_student.config.state_size, shared_student.query_features(QUERIES)
    same = torch.cat([raw[:, :states], raw[:1, states:].expand(len(raw), -1)], dim=1)
    with pytest.raises(ValueError, match="pooled_documents: all 3 texts have the same words; accepted"):
        shared_student.predictor.fit_whitening(raw, same, 0.1)


def test_it_carries_over_to_words_that_no_training_document_has() -> None:
    """A query's document is the one it names; half of 120 names are trained on, R@1 is of the others among all."""
    backbone = AutoConfig.for_model(
        "qwen2", vocab_size=64, hidden_size=48, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    found = {}
    for shared_dim in (0, 32):
        torch.manual_seed(0)
        names = torch.nn.functional.normalize(torch.randn(120, 48), dim=1)
        config = RabtrieverConfig(
            text_config=backbone, true_token_id=1, false_token_id=2, embedding_dim=64, shared_dim=shared_dim,
            feature_poolings=["mean"],
        )  # fmt: skip
        predictor, direction = RabtrieverPredictor(config), torch.randn(48)
        queries, documents = names + 0.03 * torch.randn(120, 48), names + 0.03 * torch.randn(120, 48)
        if shared_dim:  # the states say the same as the words
            queries, documents = queries.repeat(1, 2), documents.repeat(1, 2)
        predictor.fit_whitening(queries, documents, damping=0.1)
        queries, documents = predictor.whiten_query(queries), predictor.whiten_document(documents)
        optimizer = torch.optim.AdamW([p for p in predictor.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(100):
            rows = torch.randperm(60)[:32]
            scores = predictor.encode_query(queries[rows], direction) @ predictor.encode_document(documents[:60]).T
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(scores, rows).backward()
            optimizer.step()
        with torch.no_grad():
            scores = predictor.encode_query(queries[60:], direction) @ predictor.encode_document(documents).T
        found[shared_dim] = (scores.argmax(1) == torch.arange(60, 120)).float().mean().item()
    assert found[32] >= 0.6 and found[0] <= 0.3, found
