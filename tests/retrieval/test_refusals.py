"""What is refused while a corpus is encoded or put into a store changes nothing, and comes before the work."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import CorpusVectors, Document, DocumentReader, VectorStore, encode_corpus
from modeling_rabtriever.retrieval.corpus_vectors import MANIFEST, shard_path, shard_paths
from modeling_rabtriever.retrieval.ray_encoding import encode_corpus_with_ray


def corpus(count: int, **metadata: Any) -> list[Document]:
    return [Document(f"d{row}", f"bring the sponge {row}", {"row": row, **metadata}) for row in range(count)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def encoded(student: RabtrieverModel, tmp_path: Path) -> Path:
    encode_corpus(student, corpus(15), tmp_path / "v", documents_per_shard=5)
    return tmp_path / "v"


@pytest.fixture
def counted(student: RabtrieverModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents the student was given, call by call."""
    encode, calls = student.encode_document, []
    monkeypatch.setattr(student, "encode_document", lambda texts, *a, **k: calls.append(len(texts)) or encode(texts))
    return calls


OTHERS: dict[str, list[Document]] = {
    "a changed document": [*corpus(7), Document("d7", "another text"), *corpus(15)[8:]],
    "changed metadata": corpus(15, lang="en"),
    "a shorter corpus": corpus(10),
    "a much shorter corpus": corpus(3),
    "a longer corpus": corpus(20),
    "one more document": corpus(16),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_corpus_leaves_a_finished_folder_as_it_was(
    student: RabtrieverModel, encoded: Path, counted: list[int], other: str
) -> None:
    before = content(encoded)
    with pytest.raises(ValueError, match="accepted: another folder"):
        encode_corpus(student, OTHERS[other], encoded, documents_per_shard=5)
    assert content(encoded) == before and not counted
    assert [document for shard in CorpusVectors(encoded) for document in shard.documents] == corpus(15)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_another_corpus_does_not_fill_a_gap(
    student: RabtrieverModel, encoded: Path, counted: list[int], other: str, fault: str
) -> None:
    whole, gap = content(encoded), shard_path(encoded, 1)
    gap.unlink()
    if fault == "broken":
        gap.write_bytes(whole[gap.name][:-40])
    before = content(encoded)
    with pytest.raises(ValueError, match="accepted: another folder"):
        encode_corpus(student, OTHERS[other], encoded, documents_per_shard=5)
    found = content(encoded)
    if other in ("a shorter corpus", "a longer corpus", "one more document"):  # the gap is its own too
        assert found in (whole, before)
    else:
        assert found == before and not counted
    encode_corpus(student, corpus(15), encoded, documents_per_shard=5)
    assert content(encoded) == whole and counted == [5]


def test_a_folder_of_an_older_version_is_compared_too(student: RabtrieverModel, encoded: Path) -> None:
    record = json.loads((encoded / MANIFEST).read_text())
    del record["shards"]
    (encoded / MANIFEST).write_text(json.dumps(record))
    before = content(encoded)
    for other in OTHERS.values():
        with pytest.raises(ValueError, match="accepted: another folder"):
            encode_corpus(student, other, encoded, documents_per_shard=5)
        assert content(encoded) == before
    shard_path(encoded, 2).unlink()
    assert len(list(encode_corpus(student, corpus(15), encoded, documents_per_shard=5))) == 3


def test_a_call_stopped_before_its_first_shard_binds_nobody(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "encode_document", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(student, corpus(3), tmp_path / "v")
    monkeypatch.undo()
    assert len(encode_corpus(student, corpus(3), tmp_path / "v", "int8", documents_per_shard=2)) == 3


BAD: dict[str, tuple[list[Document], str]] = {
    "types": (
        [*corpus(7, year=2020), Document("late", "x", {"year": "2021"})],
        "field 'year' is a text in the document 'late' and a whole number in the document 'd0'",
    ),
    "truth and number": (
        [*corpus(2, new=True), Document("late", "x", {"new": 1})],
        "field 'new' is a whole number in the document 'late' and true or false in",
    ),
    "a reserved name": ([*corpus(1), Document("late", "x", {"vector": 1})], "'late' has a metadata field called 'vec"),
    "an inner name": ([Document("late", "x", {"_rowid": 1})], "'late' has a metadata field called '_rowid'"),
    "a name with NUL": ([Document("late", "x", {"a\0b": 1})], "'late' has a metadata field called"),
    "a name that is no text": (
        [Document("late", "x", {1: 1})],
        "'late' is not a dictionary with string keys; accepted",
    ),
    "a large number": ([Document("late", "x", {"a": 1 << 63})], "'late' has 9223372036854775808 in the metadata"),
    "infinity": (
        [Document("late", "x", {"a": math.inf})],
        r"metadata of the document 'late' cannot be written as JSON \(a number is inf\); accepted: finite numbers",
    ),
    "inner infinity": (
        [Document("late", "x", {"a": [{"b": -math.inf}]})],
        r"document 'late' cannot be written as JSON \(a number is -inf\)",
    ),
    "half a character": ([Document("late", "x \ud800")], "'late' holds half of a surrogate pair"),
    "half a field": ([Document("late", "x", {"a": ["\udc00"]})], "'late' holds half of a surrogate pair"),
    "a number for an id": ([Document(3, "x")], "the document 3 has an id or a text that is not a string"),
    "bytes for a text": ([Document("late", b"x")], "'late' has an id or a text that is not a string"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_metadata_is_refused_before_its_shard_is_encoded(
    student: RabtrieverModel, tmp_path: Path, counted: list[int], case: str
) -> None:
    documents, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        encode_corpus(student, documents, tmp_path / "v", documents_per_shard=5)
    assert sum(counted) == (len(documents) - 1) // 5 * 5  # the shards before
    store = VectorStore.create(tmp_path / "s", "model", 24)
    with pytest.raises(ValueError, match=message):
        store.upsert(documents, torch.ones(len(documents), 24))
    store.refresh()
    assert len(store) == 0


def test_bad_metadata_is_refused_before_workers_start(student: RabtrieverModel, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    student.save_pretrained(tmp_path / "model")
    rows = [{"id": str(row), "text": "x", "year": 2020 if row < 8 else "2021"} for row in range(9)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="field 'year' is a text in the document '8'"):
        encode_corpus_with_ray(
            str(tmp_path / "model"), DocumentReader(tmp_path / "c.jsonl"), tmp_path / "v", 1, documents_per_shard=2
        )
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("other", OTHERS)
def test_with_ray_another_corpus_leaves_the_folder_as_it_was(
    student: RabtrieverModel, encoded: Path, tmp_path: Path, other: str
) -> None:
    pytest.importorskip("ray")
    student.save_pretrained(tmp_path / "model")
    rows = [{"id": document.id, "text": document.text, **document.metadata} for document in OTHERS[other]]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for gap in (False, True):
        if gap:
            shard_path(encoded, 1).unlink()
        before = content(encoded)
        with pytest.raises(ValueError, match="accepted: another folder"):
            encode_corpus_with_ray(
                str(tmp_path / "model"), DocumentReader(tmp_path / "c.jsonl"), encoded, 1, documents_per_shard=5
            )
        assert content(encoded) == before


def test_numbers_of_both_kinds_are_numbers(student: RabtrieverModel, tmp_path: Path) -> None:
    documents = [Document(f"d{row}", f"text {row}", {"price": 5 if row < 5 else row / 2}) for row in range(8)]
    corpus = encode_corpus(student, documents, tmp_path / "v", documents_per_shard=3)
    store = VectorStore.of_corpus(tmp_path / "s", corpus)
    store.upsert([Document("whole", "x", {"price": 7, "count": 1 << 53 | 1})], torch.ones(1, 24))
    store.upsert([Document("part", "x", {"count": 0.5})], torch.ones(1, 24))
    query = torch.ones(1, 24)
    assert {hit.id for hit in store.search(query, 9, "price = 5")[0]} == {f"d{row}" for row in range(5)}
    (hit,) = store.search(query, 9, "price > 3.2 AND price < 3.8")[0]
    assert hit.id == "d7" and hit.metadata == {"price": 3.5}
    assert store.search(query, 9, "price = 7")[0][0].metadata == {"price": 7, "count": 1 << 53 | 1}


def test_nan_is_a_missing_value_and_never_written(student: RabtrieverModel, tmp_path: Path) -> None:
    documents = [Document("a", "x", {"price": math.nan, "tags": [1.5, math.nan]}), Document("b", "y", {"price": 2.5})]
    found = encode_corpus(student, documents, tmp_path / "v")
    expected = [{"tags": [1.5, None]}, {"price": 2.5}]
    assert [document.metadata for shard in found for document in shard.documents] == expected
    encode_corpus(student, documents, tmp_path / "v")  # the same corpus
    store = VectorStore.of_corpus(tmp_path / "s", found)
    store.upsert([Document("c", "z", {"price": math.nan})], torch.ones(1, 24))
    hits = {hit.id: hit.metadata for hit in store.search(torch.ones(1, 24), 3)[0]}
    assert hits == {"a": expected[0], "b": expected[1], "c": {}}


FAULTS: dict[str, Callable[[Path], None]] = {
    "a broken shard": lambda folder: shard_path(folder, 2).write_bytes(b"PAR1"),
    "a missing shard": lambda folder: shard_path(folder, 2).unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_corpus_changes_no_store_and_makes_none(encoded: Path, tmp_path: Path, fault: str) -> None:
    VectorStore.of_corpus(tmp_path / "s", CorpusVectors(encoded))
    store = VectorStore(tmp_path / "s")
    store.delete(["d0"])
    FAULTS[fault](encoded)
    before = content(tmp_path / "s")
    with pytest.raises(ValueError, match=r"vectors-000002.parquet"):
        store.add_corpus(CorpusVectors(encoded))
    with pytest.raises(ValueError, match=r"vectors-000002.parquet"):
        VectorStore.of_corpus(tmp_path / "new", CorpusVectors(encoded))
    assert content(tmp_path / "s") == before and not (tmp_path / "new").exists()


def test_a_corpus_that_does_not_fit_changes_no_store(student: RabtrieverModel, tmp_path: Path) -> None:
    documents = [*corpus(6), Document("late", "x", {"lang": 3})]
    found = encode_corpus(student, documents, tmp_path / "v", documents_per_shard=2)
    store = VectorStore.create(tmp_path / "s", found.model, 24)
    store.upsert([Document("first", "x", {"lang": "en"})], torch.ones(1, 24))
    before = content(tmp_path / "s")
    with pytest.raises(ValueError, match="'lang' is a whole number in the document 'late' and a text in the store"):
        store.add_corpus(found)
    assert content(tmp_path / "s") == before and not store.unfinished


def test_ids_of_a_deletion_that_cannot_be_read(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "s", "model", 2)
    for ids in ("d1", [1], ["\ud800"]):
        with pytest.raises(ValueError, match="accepted: "):
            store.delete(ids)


def test_shards_are_listed_once_each(encoded: Path) -> None:
    assert len(json.loads((encoded / MANIFEST).read_text())["shards"]) == len(shard_paths(encoded)) == 3
