"""What the page shows, without a page: rankings, explanations, documents of a visitor."""

import json
from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.demo import Ranker, read_corpus
from modeling_rabtriever.demo import documents as limits
from modeling_rabtriever.demo.documents import joined, pasted_texts, uploaded_texts
from modeling_rabtriever.demo.ranking import explain
from modeling_rabtriever.demo.rendering import results, sample
from modeling_rabtriever.evaluation.baselines import BM25
from tests.conftest import DOCUMENTS, QUERIES
from tests.modeling.students import student_with


def test_lists_are_those_of_the_library(student: RabtrieverModel, reranker: GenerativeRerankerModel) -> None:
    ranker = Ranker(student, reranker)
    indexed = ranker.index(DOCUMENTS)
    for query in QUERIES:
        for ranked, model in (
            (ranker.rank_student(query, indexed), student),
            (ranker.rank_teacher(query, indexed), reranker),
        ):
            expected = model.rank(query, DOCUMENTS)
            assert [hit.row for hit in ranked.hits] == [hit["corpus_id"] for hit in expected]
            scores = torch.tensor([hit.score for hit in ranked.hits])
            torch.testing.assert_close(scores, torch.tensor([hit["score"] for hit in expected]), atol=1e-4, rtol=1e-4)
            assert ranked.milliseconds > 0
        assert ranked.places == {hit["corpus_id"]: place for place, hit in enumerate(expected, start=1)}


def test_bm25_lists_what_shares_a_word(student: RabtrieverModel) -> None:
    ranker = Ranker(student)
    indexed = ranker.index(DOCUMENTS)
    (scores,) = BM25(DOCUMENTS)(["a wooden sponge for the attic"])
    found = ranker.rank_bm25("a wooden sponge for the attic", indexed)
    assert {hit.row: hit.score for hit in found.hits} == {
        row: pytest.approx(float(score)) for row, score in enumerate(scores) if score > 0
    }
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    for texts, query in ((DOCUMENTS, "zebra"), (DOCUMENTS, "the"), (["the", "a"], "the"), (["the"], "zebra")):
        assert ranker.rank_bm25(query, ranker.index(texts)).hits == ()


def test_an_explanation_adds_up_to_the_score(reranker: GenerativeRerankerModel) -> None:
    student = student_with(reranker, embedding_dim=25)
    ranker = Ranker(student)
    query, vectors = student.encode_query([QUERIES[0]])[0], student.encode_document(DOCUMENTS)
    assert vectors.shape[1] == 25
    for hit in ranker.rank_student(QUERIES[0], ranker.index(DOCUMENTS)).hits:
        made_of = hit.explanation
        assert made_of is not None and made_of.score == pytest.approx(hit.score, abs=1e-4)
        assert sum(term.product for term in made_of.terms) + made_of.rest == pytest.approx(made_of.score)
        products = (query * vectors[hit.row]).tolist()
        largest = sorted(range(25), key=lambda dimension: -abs(products[dimension]))[: len(made_of.terms)]
        assert [term.dimension for term in made_of.terms] == largest
        assert len(made_of.terms) + made_of.others == 25
    with pytest.raises(ValueError, match=r"query_embeds \(25,\) and document_embeds \(4, 25\) do not fit; accepted"):
        explain(query, vectors)


def test_known_documents_are_not_encoded_again(student: RabtrieverModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = Ranker(student)
    before = ranker.index(DOCUMENTS[:3])
    encoded: list[str] = []
    original = student.encode_document
    monkeypatch.setattr(student, "encode_document", lambda texts: (encoded.extend(texts), original(texts))[1])
    after = ranker.index([DOCUMENTS[3], DOCUMENTS[1]], before)
    assert encoded == [DOCUMENTS[3]]
    assert torch.equal(after.vectors[1], before.vectors[1]) and len(after) == 2
    assert len(before) == 3
    torch.testing.assert_close(after.vectors[:1], original([DOCUMENTS[3]]))


def test_texts_are_shown_as_text(student: RabtrieverModel, reranker: GenerativeRerankerModel) -> None:
    ranker = Ranker(student, reranker)
    evil = "<img src=x onerror=alert(1)> sponge & \"quote\" 'single'"
    indexed = ranker.index([evil])
    lists = [rank("sponge", indexed) for rank in (ranker.rank_bm25, ranker.rank_student, ranker.rank_teacher)]
    html = results(1, *lists, teacher_works=False)
    assert "<img" not in html
    assert "<img" not in sample([evil]) and "&lt;img" in sample([evil])
    assert html.count("&lt;img src=x onerror=alert(1)&gt; sponge &amp; &quot;quote&quot; &#x27;single&#x27;") == 4


def test_wrong_models_and_queries(student: RabtrieverModel, reranker: GenerativeRerankerModel) -> None:
    with pytest.raises(ValueError, match="the student is a GenerativeRerankerModel; accepted: a RabtrieverModel"):
        Ranker(reranker)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the teacher is a RabtrieverModel; accepted: a GenerativeRerankerModel"):
        Ranker(student, student)  # type: ignore[arg-type]
    ranker = Ranker(student)
    indexed = ranker.index(DOCUMENTS)
    with pytest.raises(ValueError, match="there is no teacher"):
        ranker.rank_teacher("sponge", indexed)
    for rank in (ranker.rank_bm25, ranker.rank_student):
        with pytest.raises(ValueError, match="the query is blank"):
            rank(" ", indexed)
        with pytest.raises(ValueError, match="the query has 2,001 characters; accepted: at most 2,000"):
            rank("a" * 2001, indexed)


def test_what_a_visitor_brings(tmp_path: Path) -> None:
    assert pasted_texts(" a lamp \n\n  the ladder\r\n") == ["a lamp", "the ladder"]
    plain, lines = tmp_path / "own.TXT", tmp_path / "own.jsonl"
    plain.write_bytes(b"\xef\xbb\xbfa lamp\nthe ladder\n")
    lines.write_text('{"text": "a lamp"}\n\n{"_id": "x", "title": "the", "text": "ladder"}\n')
    assert uploaded_texts(plain) == uploaded_texts(lines) == ["a lamp", "the ladder"]
    assert joined(["a lamp"], ["the ladder", "a lamp", "the ladder"]) == ["a lamp", "the ladder"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.pdf", b"x", "own.pdf ends in '.pdf'; accepted: .jsonl, .txt"),
        ("own.txt", b" \n", "own.txt holds no document"),
        ("own.txt", b"a\xff", "own.txt line 1: not UTF-8 .byte 1 of the line.; accepted: UTF-8"),
        ("own.txt", b"a\n" * 131_073, "own.txt has 262,146 bytes; accepted: at most 262,144"),
        ("own.txt", b"fine\n" + b"a" * 2001, "document 2 has 2,001 characters; accepted: at most 2,000"),
        ("own.jsonl", b'{"text": "a"}\n{"text":', "own.jsonl line 2: broken JSON"),
        ("own.jsonl", b"[" * 100_000, "own.jsonl line 1: broken JSON"),
        ("own.jsonl", b'\n{"title": " "}', "own.jsonl line 2: the document '2' has no text"),
        ("own.jsonl", b'["a"]', "own.jsonl line 1: .* is not an object"),
    ],
)
def test_uploads_that_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        uploaded_texts(tmp_path / name)
    assert str(tmp_path) not in str(refused.value)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there are 499 documents and 2 new ones; accepted: at most 500 in total"):
        joined([str(row) for row in range(499)], ["a", "b", "3"])
    with pytest.raises(ValueError, match="the pasted text has 262,146 bytes"):
        pasted_texts("é\n" * 87_382)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": row, "text": "a"}) + "\n" for row in range(4)))
    monkeypatch.setattr(limits, "CORPUS_DOCUMENTS", 3)
    with pytest.raises(ValueError, match="holds more than 3 documents"):
        read_corpus(corpus)
    corpus.write_text("")
    with pytest.raises(ValueError, match="holds no documents"):
        read_corpus(corpus)
