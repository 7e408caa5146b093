"""Several writers of one store: one row per id, whoever writes, and nothing is lost where one is stopped."""

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest
import torch

from modeling_rabtriever.retrieval import Document, VectorStore
from modeling_rabtriever.retrieval.lance_table import TABLE, Changes, ConflictError, StoreTable


def documents(count: int, first: int = 0, **metadata: Any) -> list[Document]:
    return [Document(f"d{row}", f"text {row}", {"size": row, **metadata}) for row in range(first, first + count)]


def vectors(count: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    VectorStore.create(tmp_path / "store", "model", 4)
    return tmp_path / "store"


def raw(folder: Path) -> Any:
    """The table as a writer that is not ours has it."""
    return lancedb.connect(folder).open_table(TABLE)


def add_rows(folder: Path, ids: list[str], text: str) -> None:
    table = raw(folder)
    rows = {
        "id": pa.array(ids, pa.string()),
        "text": pa.array([text] * len(ids), pa.string()),
        "metadata": pa.array(["{}"] * len(ids), pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array([1.0] * 4 * len(ids), pa.float32()), 4),
    }
    others = {field.name: pa.nulls(len(ids), field.type) for field in table.schema if field.name not in rows}
    table.add(pa.table({**rows, **others}))


def texts(folder: Path) -> list[tuple[str, str]]:
    rows = raw(folder).search().select(["id", "text"]).limit(10_000).to_arrow().to_pylist()
    return sorted((row["id"], row["text"]) for row in rows)


def write_much(folder: Path, writer: int, start: Any) -> None:
    """Upserts ids that others upsert too, with new columns; deletes, compacts."""
    store = VectorStore(folder)
    start.wait()
    for number in range(4):
        store.upsert(documents(6, 4 * number), vectors(6))
        store.upsert(documents(3, 40 + number, **{f"field{writer}{number}": 1, f"shared{number}": 0.5}), vectors(3))
        store.delete([f"d{4 * number}"])
        store.compact()
    store.upsert(documents(60), vectors(60))


@pytest.mark.parametrize("share", [True, False], ids=["one object", "an object each"])
def test_threads_write_one_row_per_id(folder: Path, share: bool) -> None:
    store, failed = VectorStore(folder), []

    def write(writer: int) -> None:
        try:
            mine = store if share else VectorStore(folder)
            for number in range(5):
                mine.upsert(documents(8, 4 * number, **{f"field{writer}": number}), vectors(8))
            mine.compact()
            assert len(mine.search(vectors(1), 100)[0]) >= 8
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert texts(folder) == sorted((f"d{row}", f"text {row}") for row in range(24))


@pytest.mark.slow
def test_processes_write_one_row_per_id(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    other = context.Process(target=write_much, args=(folder, 1, start))
    other.start()
    write_much(folder, 0, start)
    other.join()
    assert other.exitcode == 0
    assert texts(folder) == sorted((f"d{row}", f"text {row}") for row in range(60))
    assert len(VectorStore(folder).search(vectors(1), 100, "shared3 = 0.5")[0]) == 0  # replaced by the last upsert


@pytest.mark.parametrize("compacted", [False, True])
def test_duplicates_of_foreign_writers_are_healed_by_the_next_upsert(folder: Path, compacted: bool) -> None:
    store = VectorStore(folder)
    store.upsert(documents(5), vectors(5))
    add_rows(folder, ["d1", "d3", "new"], "second")
    if compacted:
        raw(folder).optimize()
    add_rows(folder, ["d3", "new", "new"], "third")
    assert len(raw(folder)) == 11
    store.upsert([Document("other", "x")], vectors(1))
    newest = {"d0": "text 0", "d1": "second", "d2": "text 2", "d3": "third", "d4": "text 4", "new": "third"}
    assert texts(folder) == sorted([*newest.items(), ("other", "x")])


def test_duplicates_of_the_ids_given_are_replaced(folder: Path) -> None:
    add_rows(folder, ["a", "a", "b"], "old")
    add_rows(folder, ["a"], "old")
    VectorStore(folder).upsert([Document("a", "new")], vectors(1))
    assert texts(folder) == [("a", "new"), ("b", "old")]


def test_ids_are_read_only_where_a_foreign_writer_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = Changes.ids, []
    monkeypatch.setattr(Changes, "ids", lambda changes: calls.append(1) or read(changes))
    store = VectorStore(folder)
    store.upsert(documents(3), vectors(3))
    assert len(calls) == 1  # who made the table is not known
    for number in range(3):
        store.upsert(documents(3, number, **{f"field{number}": 1}), vectors(3))
        VectorStore(folder).upsert(documents(3, number), vectors(3))
    assert len(calls) == 1
    add_rows(folder, ["d1"], "again")
    store.upsert(documents(1), vectors(1))
    assert len(calls) == 2
    store.upsert(documents(1), vectors(1))
    assert len(calls) == 2


def test_a_foreign_commit_in_between_is_seen_by_the_next_upsert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, upsert = VectorStore(folder), Changes.upsert
    store.upsert(documents(3), vectors(3))

    def disturbed(changes: Changes, rows: pa.Table) -> None:
        add_rows(folder, ["d1"], "foreign")
        upsert(changes, rows)

    monkeypatch.setattr(Changes, "upsert", disturbed)
    store.upsert(documents(3), vectors(3))
    monkeypatch.undo()
    store.upsert(documents(1), vectors(1))
    assert [id_ for id_, _ in texts(folder)] == ["d0", "d1", "d2"]


def disturb(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int, change: Callable[[], Any]) -> list[int]:
    """Lets a foreign writer come in after each of the first openings of the table."""
    latest, openings = StoreTable.latest, []

    def disturbed(table: StoreTable) -> Any:
        opened = latest(table)
        openings.append(1)
        if len(openings) <= times:
            change()
        return opened

    monkeypatch.setattr(StoreTable, "latest", disturbed)
    return openings


@pytest.mark.parametrize("what", ["column", "compact"])
def test_conflicts_are_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    store = VectorStore(folder)
    for row in range(3):
        store.upsert(documents(2, 2 * row), vectors(2))
    texts_before = texts(folder)
    foreign = iter(range(100))
    change = {
        "column": lambda: raw(folder).add_columns([pa.field(f"theirs{next(foreign)}", pa.int64())]),
        "compact": lambda: raw(folder).delete(f"id = 'd{next(foreign)}'"),
    }[what]
    openings = disturb(folder, monkeypatch, 2, change)
    if what == "column":
        store.upsert(documents(6, ours=1), vectors(6))
        assert texts(folder) == texts_before
    else:
        store.compact()
        assert texts(folder) == texts_before[2:]
    assert len(openings) >= 3


def test_endless_conflicts_end_with_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VectorStore(folder)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    foreign = iter(range(100))
    openings = disturb(
        folder, monkeypatch, 100, lambda: raw(folder).add_columns([pa.field(f"f{next(foreign)}", pa.int64())])
    )
    with pytest.raises(ConflictError, match="another program changed it at the same time .*accepted: another call"):
        store.upsert(documents(1), vectors(1))
    assert len(openings) == 10


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A process that dies before its commit of this number."""
    commit, calls = Changes.commit, []

    def stopped(changes: Changes, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return commit(changes, *arguments)

    monkeypatch.setattr(Changes, "commit", stopped)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_stopped_while_a_column_is_widened(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = VectorStore(folder)
    store.upsert(documents(4), vectors(4))
    new = [Document("x", "new", {"size": 2.5})]
    stop_at(monkeypatch, number)
    with pytest.raises(KeyboardInterrupt):
        store.upsert(new, vectors(1))
    monkeypatch.undo()
    store.refresh()
    assert [hit.id for hit in store.search(vectors(1), 9, "size = 3")[0]] == ["d3"]  # at any time
    store.upsert(new, vectors(1))
    assert sorted(hit.id for hit in store.search(vectors(1), 9, "size > 2")[0]) == ["d3", "x"]
    assert store.search(vectors(1), 9, "size = 3")[0][0].metadata == {"size": 3}
    assert raw(folder).schema.names == ["id", "text", "metadata", "vector", "size"]


@pytest.mark.parametrize("number", [1, 2])
def test_stopped_while_duplicates_are_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = VectorStore(folder)
    store.upsert(documents(3), vectors(3))
    add_rows(folder, ["d1", "d2"], "newer")
    stop_at(monkeypatch, number)
    with pytest.raises(KeyboardInterrupt):
        store.upsert([Document("x", "new")], vectors(1))
    assert {("d0", "text 0"), ("d1", "newer"), ("d2", "newer")} <= set(texts(folder))
    monkeypatch.undo()
    store.upsert([Document("x", "new")], vectors(1))
    assert texts(folder) == [("d0", "text 0"), ("d1", "newer"), ("d2", "newer"), ("x", "new")]


def make(folder: Path) -> str:
    try:
        VectorStore.create(folder, "model", 4)
    except ValueError as error:
        return str(error)
    return "made"


def test_one_of_many_makes_the_store(tmp_path: Path) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(make(tmp_path / "new"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.count("made") == 1 and sum("already holds a store" in message for message in said) == 5


def test_a_store_whose_making_was_stopped_is_made_again(tmp_path: Path) -> None:
    half = tmp_path / "store" / f"{TABLE}.lance" / "_versions"
    half.mkdir(parents=True)
    (tmp_path / "store" / "approximate-1.faiss").write_bytes(b"of a table that was removed")
    assert not VectorStore.exists(tmp_path / "store")
    store = VectorStore.create(tmp_path / "store", "model", 4)
    assert len(store) == 0 and not store.has_index
