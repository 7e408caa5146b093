"""The store: what is put in comes back, changes are kept, and mistakes are refused."""

import json
import multiprocessing
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pytest
import torch

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.files import write_json
from modeling_rabtriever.retrieval import CorpusVectors, Document, Hit, VectorStore, encode_corpus, lance_table
from modeling_rabtriever.retrieval.corpus_vectors import MANIFEST, shard_path, write_shard
from modeling_rabtriever.retrieval.lance_table import TABLE


def documents(count: int, first: int = 0) -> list[Document]:
    colors = ["red", "it's blue"]
    return [
        Document(f"d{row}", f"text {row}", {"size": row, "color": colors[row % 2], "tags": [row]})
        for row in range(first, first + count)
    ]


def vectors(count: int, k: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, k, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    made = VectorStore.create(tmp_path / "store", "model-a", 6)
    made.upsert(documents(40), vectors(40))
    return made


def ids(found: list[list[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in found]


def test_search_is_exact_and_returns_whole_documents(store: VectorStore, tmp_path: Path) -> None:
    queries = vectors(3, seed=1)
    scores, rows = (queries @ vectors(40).T).topk(5)
    found = VectorStore(tmp_path / "store", "model-a").search(queries, 5)
    assert ids(found) == [[f"d{row}" for row in own] for own in rows.tolist()]
    torch.testing.assert_close(torch.tensor([[hit.score for hit in hits] for hits in found]), scores)
    best = rows[0, 0].item()
    assert found[0][0].text == f"text {best}" and found[0][0].metadata == documents(1, best)[0].metadata
    assert len(store) == 40


def test_filters(store: VectorStore) -> None:
    queries = vectors(2, seed=1)
    found = store.search(queries, 40, where="color = 'it''s blue' AND size > 10")
    assert [sorted(hit.metadata["size"] for hit in hits) for hits in found] == [list(range(11, 40, 2))] * 2
    assert ids(store.search(queries, 3, where="size > 1000")) == [[], []]
    with pytest.raises(ValueError, match="the store could not answer: .*colour"):
        store.search(queries, 3, where="colour = 'red'")


@pytest.mark.parametrize(
    "where",
    [
        "size > 10 size < 20", "size > 10; size < 20", "size > 10 color = 'red'", "(size > 10) (size < 20)",
        "size = 1 2", "size > 10 LIMIT 1", "size > 10 )", "size > 10) OR (size < 5", "size > 10)) OR ((1 = 1",
        "size > 10\0", "(size > 1",
    ],
)  # fmt: skip
def test_a_condition_is_read_to_its_end_or_refused(store: VectorStore, where: str) -> None:
    with pytest.raises(ValueError, match="^where is .*accepted|could not answer.*pars"):
        store.search(torch.randn(1, 6), 40, where=where)


@pytest.mark.parametrize("where", ["size > 38 -- )", "size > 38 /* ) */", "(size > 38)", "size > 38 AND color <> ')('"])
def test_brackets_in_texts_and_comments_do_not_count(store: VectorStore, where: str) -> None:
    assert ids(store.search(vectors(1), 40, where=where)) == [["d39"]]


def test_changes_are_kept(store: VectorStore, tmp_path: Path) -> None:
    query = torch.ones(1, 6)
    new = [Document("d3", "replaced", {"size": 1000, "weight": 2.5}), Document("new", "it's new", {})]
    store.upsert(new, torch.stack([torch.full((6,), 9.0), torch.full((6,), 8.0)]))
    assert len(store) == 41 and ids(store.search(query, 2)) == [["d3", "new"]]
    assert store.delete(["d3", "it's not there", "d4", "nor this"]) == (2, ["it's not there", "nor this"])
    again = VectorStore(tmp_path / "store")
    assert len(again) == 39 and ids(again.search(query, 1)) == [["new"]]
    again.upsert([Document("d4", "back", {"weight": 1})], torch.full((1, 6), 10.0))  # a whole number among decimals
    assert again.search(query, 1, where="weight >= 1")[0] == [Hit("d4", 60.0, "back", {"weight": 1})]
    again.compact()
    assert ids(again.search(query, 2)) == [["d4", "new"]]
    store.refresh()
    assert len(store) == 40


def _append(folder: str, rounds: int) -> None:
    writer = VectorStore(folder)
    for number in range(rounds):
        writer.upsert(documents(5, 1000 + 5 * number), vectors(5, seed=number))


@pytest.mark.slow
def test_readers_are_not_disturbed_by_a_writer(store: VectorStore, tmp_path: Path) -> None:
    queries = vectors(2, seed=1)
    before, reader = ids(store.search(queries, 5)), VectorStore(tmp_path / "store")
    writer = multiprocessing.get_context("spawn").Process(target=_append, args=(str(tmp_path / "store"), 6))
    writer.start()
    sizes = []
    while writer.is_alive():
        assert ids(store.search(queries, 5)) == before and len(store) == 40  # the version it opened
        reader.refresh()
        sizes.append(len(reader))
        assert len(reader.search(queries, 100)[0]) == len(reader)
    writer.join()
    assert writer.exitcode == 0
    assert sizes == sorted(sizes) and all((size - 40) % 5 == 0 for size in sizes)
    store.refresh()
    assert len(store) == 70


def test_approximate_search(store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no approximate index; accepted"):
        store.search(vectors(1), 3, approximate=True)
    assert not store.has_index
    store.upsert(documents(2000), vectors(2000))
    queries = vectors(20, seed=1)
    exact, found, probes = store.search(queries, 10), {}, {}
    for recall in (0.3, 0.9):
        probes[recall] = store.build_index(recall, queries).probes
        opened = VectorStore(tmp_path / "store")
        assert opened.has_index
        some = opened.search(queries, 10, approximate=True)
        found[recall] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids(some), ids(exact), strict=True)])
        assert opened.tuning is not None and opened.tuning.recall == pytest.approx(found[recall])
        scores = {hit.id: hit.score for hit in exact[0]}
        assert [hit.score for hit in some[0] if hit.id in scores] == pytest.approx(
            [scores[hit.id] for hit in some[0] if hit.id in scores], rel=1e-5
        )
    assert 0.3 <= found[0.3] < 0.9 <= found[0.9] and probes[0.3] < probes[0.9]
    store.build_index(0.1)
    where = "size < 30"
    assert ids(store.search(queries, 8, where, approximate=True)) == ids(store.search(queries, 8, where))
    assert store.search(queries[:1], 8, "size < 3", approximate=True)[0][0].metadata["size"] < 3


def test_an_index_of_another_version_is_refused(store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no documents"):
        VectorStore.create(tmp_path / "empty", "m", 6).build_index()
    store.build_index()
    reader = VectorStore(tmp_path / "store")
    store.delete(["d3"])
    with pytest.raises(ValueError, match="has an approximate index of another version; accepted"):
        store.search(vectors(1), 3, approximate=True)
    assert len(reader.search(vectors(1), 40, approximate=True)[0]) == 40  # its version is still there
    store.build_index()
    assert "d3" not in ids(store.search(vectors(1), 40, approximate=True))[0]
    assert len(list((tmp_path / "store").glob("approximate-*.faiss"))) == 1


def test_an_encoded_corpus(student: RabtrieverModel, tmp_path: Path) -> None:
    corpus = encode_corpus(student, documents(20), tmp_path / "v", documents_per_shard=8)
    store = VectorStore.create(tmp_path / "s", corpus.model, corpus.embedding_dim)
    store.add_corpus(corpus)
    store.add_corpus(corpus)  # again changes nothing
    assert len(store) == 20
    query = student.encode_query(["I spilled my drink"])
    expected = student.similarity(query, student.encode_document([d.text for d in documents(20)]))
    assert store.search(query, 1)[0][0].score == pytest.approx(expected.max().item(), rel=1e-4)
    other = VectorStore.create(tmp_path / "o", "another", corpus.embedding_dim)
    with pytest.raises(ValueError, match="was encoded by the model .*, the store by another"):
        other.add_corpus(corpus)


def test_stores_of_others_are_refused(store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds vectors of the model model-a, this model is model-b: scores"):
        VectorStore(tmp_path / "store", "model-b")
    with pytest.raises(ValueError, match="already holds a store"):
        VectorStore.create(tmp_path / "store", "model-a", 6)
    with pytest.raises(ValueError, match="holds no store; accepted"):
        VectorStore(tmp_path / "nothing")
    import lancedb

    lancedb.connect(tmp_path / "foreign").create_table(TABLE, [{"id": 1}])
    with pytest.raises(ValueError, match="holds a table that is not ours"):
        VectorStore(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("given", "numbers", "message"),
    [
        (documents(2), torch.ones(2, 5), r"vectors have shape \(2, 5\); accepted: \(2, 6\)"),
        (documents(2), torch.ones(3, 6), r"vectors have shape \(3, 6\); accepted: \(2, 6\)"),
        (documents(1) * 2, torch.ones(2, 6), "the id 'd0' is given twice"),
        (documents(1), torch.full((1, 6), torch.nan), "vectors hold NaN"),
        (
            [Document("x", "y", {"size": "large"})],
            torch.ones(1, 6),
            "field 'size' is a text in the document 'x' and a whole number in the store",
        ),
        ([Document("x", "y", {"text": "z"})], torch.ones(1, 6), "a metadata field called 'text'; accepted"),
        ([Document("x", "y", {"a.b": 1})], torch.ones(1, 6), "a metadata field called 'a.b'"),
        (
            [Document("x", "y", {"a": 1}), Document("z", "y", {"a": "b"})],
            torch.ones(2, 6),
            "field 'a' is a text in the document 'z' and a whole number in the document 'x'",
        ),
        (
            [Document("x", "y", {"a": 1 << 70})],
            torch.ones(1, 6),
            "field 'a'; accepted: whole numbers of 64 bits",
        ),
    ],
)
def test_bad_documents_are_refused(
    store: VectorStore, given: list[Document], numbers: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.upsert(given, numbers)
    store.refresh()
    assert len(store) == 40 and json.loads(json.dumps(store.search(torch.ones(1, 6), 1)[0][0].metadata))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_corpus_in_large_shards_is_stored_once(tmp_path: Path) -> None:
    rows = [Document(f"d{row}", "x") for row in range(9000)]
    held = vectors(9000, 16).numpy()
    for number, part in enumerate((rows[:4600], rows[4600:])):
        place = shard_path(tmp_path / "v", number)
        write_shard(place, part, held[4600 * number : 4600 * number + len(part)], "float32")
    record = {"model": "m", "embedding_dim": 16, "vector_type": "float32", "documents": 9000, "done": True}
    write_json(tmp_path / "v" / MANIFEST, record)
    store = VectorStore.of_corpus(tmp_path / "s", CorpusVectors(tmp_path / "v"))
    before = size(tmp_path / "s")
    store.compact()
    assert size(tmp_path / "s") == before < 1.2 * size(tmp_path / "v")
    assert len(VectorStore(tmp_path / "s").search(vectors(1, 16), 20)[0]) == 20


def test_many_small_changes_are_merged(store: VectorStore, tmp_path: Path) -> None:
    for row in range(5):
        store.upsert([Document(f"new{row}", "x")], vectors(1))
    table = lancedb.connect(tmp_path / "store").open_table(TABLE)
    assert table.stats()["fragment_stats"]["num_fragments"] == 6
    store.compact()
    table.checkout_latest()
    assert table.stats()["fragment_stats"]["num_fragments"] == 1 and len(store) == 45


def test_versions_of_more_than_a_week_ago_are_removed(
    store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert(documents(40), vectors(40, seed=1))
    before = size(tmp_path / "store")
    store.compact()
    assert size(tmp_path / "store") >= before  # the older version can still be read
    monkeypatch.setattr(lance_table, "_KEPT", timedelta(milliseconds=1))
    store.compact()
    assert size(tmp_path / "store") < 0.8 * before and len(store) == 40
