"""Anchors of both sides: the backbone's own states, whatever the padding, and what does not change."""

from collections.abc import Callable

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.identity import encoder_fingerprint
from modeling_rabtriever.modeling_pooling import before, behind
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

MakeReranker = Callable[..., GenerativeRerankerModel]


@pytest.fixture
def anchored(reranker: GenerativeRerankerModel) -> RabtrieverModel:
    anchors = {
        "query_anchors": reranker.processor.document_ids(DOCUMENTS[:2]),
        "document_anchors": reranker.processor.query_ids(QUERIES[:1]),
    }
    return RabtrieverModel.from_teacher(reranker, embedding_dim=24, shared_dim=8, **anchors)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_document_features_end_with_answers(make_reranker: MakeReranker, family: str) -> None:
    """First the document's as ever, then per anchor the teacher's log-odds for (anchor, document)."""
    reranker = make_reranker(family)
    anchors = reranker.processor.query_ids(QUERIES[:2])
    student = RabtrieverModel.from_teacher(reranker, document_anchors=anchors)
    plain = RabtrieverModel.from_teacher(reranker)
    features = student.document_features(DOCUMENTS)
    assert features.shape == (len(DOCUMENTS), student.config.document_feature_size) == (len(DOCUMENTS), 2 * 32 + 2)
    torch.testing.assert_close(features[:, : 2 * 32], plain.document_features(DOCUMENTS))
    for column, query in enumerate(QUERIES[:2]):
        expected = reranker.predict([(query, document) for document in DOCUMENTS])
        torch.testing.assert_close(features[:, 2 * 32 + column], expected, atol=1e-4, rtol=1e-4)


def test_last_states_are_the_teachers(reranker: GenerativeRerankerModel, anchored: RabtrieverModel) -> None:
    pairs = [(query, DOCUMENTS[1]) for query in QUERIES]
    states = anchored.query_features(QUERIES)[:, 2 * 32 : 3 * 32]  # second anchor, last token
    torch.testing.assert_close(reranker.log_odds(states), reranker.predict(pairs), atol=1e-4, rtol=1e-4)


def test_a_side_does_not_depend_on_the_others_anchors(reranker: GenerativeRerankerModel) -> None:
    plain = RabtrieverModel.from_teacher(reranker, shared_dim=8)
    of_queries = RabtrieverModel.from_teacher(reranker, shared_dim=8, query_anchors=[[5, 6]])
    of_documents = RabtrieverModel.from_teacher(reranker, shared_dim=8, document_anchors=[[5, 6]])
    assert torch.equal(plain.document_features(DOCUMENTS), of_queries.document_features(DOCUMENTS))
    assert torch.equal(plain.query_features(QUERIES), of_documents.query_features(QUERIES))
    words = [student.query_features(QUERIES)[:, -32:] for student in (plain, of_queries)]
    torch.testing.assert_close(*words)


def test_anchors_are_part_of_the_identity(anchored: RabtrieverModel) -> None:
    found = {encoder_fingerprint(anchored)}
    for name in ("query_anchors", "document_anchors"):
        setattr(anchored.config, name, [[9], *getattr(anchored.config, name)[1:]])
        found.add(encoder_fingerprint(anchored))
    assert len(found) == 3


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_anchor_stands_right_beside_the_text(side: str) -> None:
    texts = [[3, 4], [5, 6, 7, 8]]
    ids, mask = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(4 - len(text), None) if side == "left" else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    _check_prompts(behind([1, 2], ids, mask), texts, [[1, 2, *text] for text in texts])
    _check_prompts(before([1, 2], ids, mask), texts, [[*text, 1, 2] for text in texts])


def _check_prompts(made: tuple[torch.Tensor, ...], texts: list[list[int]], expected: list[list[int]]) -> None:
    prompts, read, own = made
    for row, text in enumerate(texts):
        assert prompts[row][read[row].bool()].tolist() == expected[row]
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
    for name in ("query_anchors", "document_anchors"):
        assert getattr(loaded.config, name) == getattr(anchored.config, name)
    assert torch.equal(loaded.encode_document(DOCUMENTS), anchored.encode_document(DOCUMENTS))
    assert torch.equal(loaded.encode_query(QUERIES), anchored.encode_query(QUERIES))


@pytest.mark.parametrize("name", ["query_anchors", "document_anchors"])
def test_anchors_have_to_fit_the_window(reranker: GenerativeRerankerModel, name: str) -> None:
    window = reranker.config.window
    student = RabtrieverModel.from_teacher(reranker, **{name: [[5]]})
    setattr(student.config, name, [[5] * window])
    with pytest.raises(ValueError, match=rf"\(\+ anchors\) make \d+ tokens; accepted: .* {window}"):
        student.processor = reranker.processor


def test_features_of_the_wrong_side_are_refused(anchored: RabtrieverModel) -> None:
    queries, documents = anchored.query_features(QUERIES), anchored.document_features(DOCUMENTS[: len(QUERIES)])
    assert queries.shape[1] != documents.shape[1]
    with pytest.raises(ValueError, match=rf"accepted: \(n, {queries.shape[1]}\) with \(n, {documents.shape[1]}\)"):
        anchored(query_features=documents, document_features=queries)
