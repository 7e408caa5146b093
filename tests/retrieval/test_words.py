"""Search by words, and its fusion with the student's ranking."""

import json
import random
from pathlib import Path

import lancedb
import pytest
import torch

import rabtriever_cli as cli
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import Document, Hit, Searcher, VectorStore, encode_corpus
from modeling_rabtriever.retrieval.lance_table import TABLE
from modeling_rabtriever.retrieval.words import fused, words_weight
from tests.conftest import DOCUMENTS, QUERIES

TEXTS = ["the red ball", "a blue ball, a ball", "", "running dogs", "the café's cat", "of the and"]


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    made = VectorStore.create(tmp_path / "s", "model", 2)
    documents = [Document(f"d{row}", text, {"row": row}) for row, text in enumerate(TEXTS)]
    made.upsert(documents, torch.ones(len(TEXTS), 2))
    return made


def ids(found: list[list[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in found]


def naive_fusion(student: list[str], words: list[str], weight: float) -> list[tuple[float, str]]:
    """Every document's score from the definition, one document at a time."""
    found = []
    for id_ in set(student) | set(words):
        score = 0.0
        if id_ in student:
            score += (1 - weight) / (60 + student.index(id_) + 1)
        if id_ in words:
            score += weight / (60 + words.index(id_) + 1)
        found.append((score, id_))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("weight", [0.5, 0.2, 0.9])
def test_fusion_is_that_of_the_definition(weight: float) -> None:
    chance = random.Random(int(10 * weight))
    for _ in range(20):
        student, words = (chance.sample([f"d{row}" for row in range(12)], chance.randint(0, 9)) for _ in range(2))
        found = fused([Hit(id_, 5.0, f"text {id_}") for id_ in student], [Hit(id_, 9.0, "") for id_ in words], weight)
        expected = naive_fusion(student, words, weight)
        assert [hit.score for hit in found] == pytest.approx([score for score, _ in expected])
        assert {hit.id: hit.score for hit in found} == pytest.approx({id_: score for score, id_ in expected})


def test_equal_scores_are_in_the_students_order() -> None:
    assert [hit.id for hit in fused([Hit("b", 1.0, "")], [Hit("a", 1.0, "")])] == ["b", "a"]


def test_words_find_documents(store: VectorStore) -> None:
    with pytest.raises(
        ValueError, match=r"has no index of words; accepted: one made by build_words \(rabtriever index"
    ):
        store.search_words(["ball"])
    assert not store.has_words
    store.build_words()
    assert store.has_words
    asked = ["BALL", "a ball that is red", "run", "cafe", "the", 'it\'s "quoted" AND (x', "zebra"]
    assert ids(store.search_words(asked)) == [["d1", "d0"], ["d0", "d1"], ["d3"], ["d4"], [], [], []]
    assert ids(store.search_words(["ball", "ball"], 1)) == [["d1"], ["d1"]]
    assert ids(store.search_words(["ball"], where="row < 1")) == [["d0"]]
    with pytest.raises(ValueError, match="could not answer"):
        store.search_words(["ball"], where="colour = 1")
    (hit,) = store.search_words(["dog"])[0]
    assert hit.text == "running dogs" and hit.metadata == {"row": 3} and hit.score > 0


def test_words_are_found_after_changes(store: VectorStore, tmp_path: Path) -> None:
    store.build_words()
    reader = VectorStore(tmp_path / "s")
    store.upsert([Document("new", "ball ball"), Document("d0", "nothing")], torch.ones(2, 2))
    store.delete(["d1"])
    assert ids(store.search_words(["ball"])) == [["new"]]
    assert ids(reader.search_words(["ball"])) == [["d1", "d0"]]  # the version it opened
    store.compact()
    store.build_words()
    assert ids(store.search_words(["ball", "nothing"])) == [["new"], ["d0"]]
    store.build_index()
    store.build_words()  # it covers all documents, so nothing changes
    assert store.search(torch.ones(1, 2), 1, approximate=True)[0]
    store.upsert([Document("later", "ball")], torch.ones(1, 2))
    store.build_words()
    table = lancedb.connect(tmp_path / "s").open_table(TABLE)
    assert table.index_stats("text_idx").num_unindexed_rows == 0 and len(table.list_indices()) == 1


def test_a_store_without_texts_has_no_words(tmp_path: Path) -> None:
    made = VectorStore.create(tmp_path / "s", "model", 2)
    made.upsert([Document("a", ""), Document("b", "")], torch.ones(2, 2))
    with pytest.raises(ValueError, match="holds no texts, so it has no words; accepted: documents with texts"):
        made.build_words()
    assert not made.has_words


@pytest.mark.parametrize("hybrid", [0, 1, -0.1, float("nan"), "yes"])
def test_other_shares_are_refused(hybrid: float) -> None:
    with pytest.raises(ValueError, match=r"hybrid is .*; accepted: true, false, or the words' share"):
        words_weight(hybrid)


@pytest.fixture
def encoded(student: RabtrieverModel, tmp_path: Path) -> VectorStore:
    documents = [Document(f"d{row}", text) for row, text in enumerate(DOCUMENTS)]
    return VectorStore.of_corpus(tmp_path / "s", encode_corpus(student, documents, tmp_path / "v"))


def test_a_hybrid_search_fuses_both(student: RabtrieverModel, encoded: VectorStore) -> None:
    with pytest.raises(ValueError, match="has no index of words"):
        Searcher(student, encoded, hybrid=True)
    encoded.build_words()
    queries = [*QUERIES, DOCUMENTS[2]]
    alone, words = Searcher(student, encoded).search(queries, 4), encoded.search_words(queries, 4)
    assert any(words)
    for hybrid, weight in ((True, 0.5), (0.9, 0.9)):
        found = Searcher(student, encoded, hybrid=hybrid).search(queries, 3)
        for mixed, first, second in zip(found, alone, words, strict=True):
            expected = naive_fusion([hit.id for hit in first], [hit.id for hit in second], weight)
            assert [hit.score for hit in mixed] == pytest.approx([score for score, _ in expected[:3]])
    found = Searcher(student, encoded, hybrid=True).search(queries, 4, where="id = 'd1'")
    assert ids(found) == [["d1"]] * len(queries)


def test_the_command_line(
    student: RabtrieverModel, encoded: VectorStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student.save_pretrained(tmp_path / "student")
    store = ["--store", str(tmp_path / "s")]
    search = ["search", "--model", str(tmp_path / "student"), *store, "--query", DOCUMENTS[2], "--hybrid"]
    assert cli.main(search) == 2
    assert "has no index of words" in capsys.readouterr().err
    assert cli.main(["index", *store, "--words"]) == 0
    (tmp_path / "ids").write_text("d0\n")
    assert cli.main(["index", *store, "--delete", str(tmp_path / "ids")]) == 0
    assert cli.main(["info", str(tmp_path / "s")]) == 0
    assert json.loads(capsys.readouterr().out)["words"] is True
    assert cli.main([*search, "0.9"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    expected = Searcher(student, VectorStore(tmp_path / "s"), hybrid=0.9).search([DOCUMENTS[2]])[0]
    assert [(hit["id"], hit["score"]) for hit in hits] == [(hit.id, hit.score) for hit in expected]
    with pytest.raises(SystemExit) as stop:
        cli.main([*search, "2"])
    assert stop.value.code == 2 and "'2' given; accepted: a number between 0 and 1" in capsys.readouterr().err
