"""Queries read behind anchors: the backbone's own states, whatever the padding, and what does not change."""

from collections.abc import Callable

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.modeling_pooling import behind
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

MakeReranker = Callable[..., GenerativeRerankerModel]


@pytest.fixture
def anchored(reranker: GenerativeRerankerModel) -> RabtrieverModel:
    anchors = reranker.processor.document_ids(DOCUMENTS[:2])
    return RabtrieverModel.from_teacher(reranker, embedding_dim=24, shared_dim=8, query_anchors=anchors)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_states_of_the_pair(make_reranker: MakeReranker, family: str) -> None:
    """Per anchor what the teacher's backbone has for (query, anchor): last token, and mean over the query's tokens."""
    reranker = make_reranker(family)
    anchors = reranker.processor.document_ids(DOCUMENTS[:2])
    student = RabtrieverModel.from_teacher(reranker, query_anchors=anchors)
    features = student.query_features(QUERIES)  # of different lengths, so some are padded
    assert features.shape == (len(QUERIES), student.config.query_feature_size) == (len(QUERIES), 2 * 2 * 32)
    for row, suffix in enumerate(reranker.processor.query_ids(QUERIES)):
        expected = []
        for anchor in anchors:
            states = reranker.backbone.base_model(torch.tensor([anchor + suffix])).last_hidden_state[0]
            expected += [states[-1], states[len(anchor) :].mean(0)]
        torch.testing.assert_close(features[row], torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_last_states_are_the_teachers(reranker: GenerativeRerankerModel, anchored: RabtrieverModel) -> None:
    pairs = [(query, DOCUMENTS[1]) for query in QUERIES]
    states = anchored.query_features(QUERIES)[:, 2 * 32 : 3 * 32]  # second anchor, last token
    torch.testing.assert_close(reranker.log_odds(states), reranker.predict(pairs), atol=1e-4, rtol=1e-4)


def test_documents_do_not_depend_on_anchors(reranker: GenerativeRerankerModel, anchored: RabtrieverModel) -> None:
    plain = RabtrieverModel.from_teacher(reranker, embedding_dim=24, shared_dim=8)
    assert torch.equal(plain.document_features(DOCUMENTS), anchored.document_features(DOCUMENTS))
    words = [student.query_features(QUERIES)[:, -32:] for student in (plain, anchored)]
    torch.testing.assert_close(*words)


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_anchor_stands_right_before_the_text(side: str) -> None:
    texts = [[3, 4], [5, 6, 7, 8]]
    ids, mask = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(4 - len(text), None) if side == "left" else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    prompts, read, own = behind([1, 2], ids, mask)
    for row, text in enumerate(texts):
        assert prompts[row][read[row].bool()].tolist() == [1, 2, *text]
        assert prompts[row][own[row].bool()].tolist() == text
        first = int(read[row].argmax())
        assert read[row, first : first + 2 + len(text)].all()  # no padding inside


def test_whitening_folds_away(anchored: RabtrieverModel) -> None:
    raw = anchored.query_features(QUERIES), anchored.document_features(DOCUMENTS)
    anchored.predictor.fit_whitening(*raw, damping=0.5)
    queries, documents = anchored.encode_query(QUERIES), anchored.encode_document(DOCUMENTS)
    white = anchored.similarity(queries, documents)
    anchored.predictor.fold_whitening()
    folded = anchored.similarity(anchored.encode_query(QUERIES), anchored.encode_document(DOCUMENTS))
    torch.testing.assert_close(folded, white, atol=1e-4, rtol=1e-4)


def test_a_saved_model_reads_the_same(anchored: RabtrieverModel, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("anchored")
    anchored.save_pretrained(folder)
    loaded = RabtrieverModel.from_pretrained(folder)
    assert loaded.config.query_anchors == anchored.config.query_anchors
    assert torch.equal(loaded.encode_query(QUERIES), anchored.encode_query(QUERIES))
