"""Deleting by a file of ids: exactly those, whatever they are made of, and what was not found is said."""

import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rabtriever_cli as cli
from modeling_rabtriever.retrieval import Document, DocumentReader, VectorStore
from modeling_rabtriever.retrieval.id_files import read_ids
from tests.security.test_fuzz import many

IDS = [
    "a", " a", "a ", "a\t", "\ufeffa", "a\u2028b", "b", "a\x0bb", "a\x85b", "a\x1cb", "A", "a\r", "a\rb", "a\nb", "'",
    "''", '"', "a' OR 'a' = 'a", "\\", "a\0b", "%", "_", "ä", "a\u0308", "🙂", "1", "true", '"a"', '{"id": "a"}', "- ",
]  # fmt: skip
HARD = {"a\nb", "a\r"}  # no line of text


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    made = VectorStore.create(tmp_path / "store", "model", 2)
    made.upsert([Document(id_, "text") for id_ in IDS], torch.randn(len(IDS), 2))
    return made


def left(store: VectorStore) -> set[str]:
    store.refresh()
    return {hit.id for hit in store.search(torch.ones(1, 2), 1000)[0]}


@pytest.mark.parametrize("id_", IDS)
def test_the_id_named_is_deleted_and_no_other(
    store: VectorStore, tmp_path: Path, id_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.dumps(id_) if len(id_) % 2 else json.dumps({"_id": id_, "text": "other fields do not matter"})
    files = {"ids.jsonl": row.encode(), "ids.txt": id_.encode(), "ids": b"\xef\xbb\xbf" + id_.encode() + b"\r\n\n"}
    for name, content in files.items():
        if (name == "ids.txt" and "\n" in id_) or (name == "ids" and id_ in HARD):
            continue
        if name == "ids.txt" and id_.startswith("\ufeff"):
            continue  # read as the mark of the file
        store.upsert([Document(id_, "text")], torch.randn(1, 2))
        (tmp_path / name).write_bytes(content)
        assert cli.main(["index", "--store", str(store.folder), "--delete", str(tmp_path / name)]) == 0
        said = capsys.readouterr().err
        assert "1 documents deleted" in said and "not found" not in said
        assert left(store) == set(IDS) - {id_}


def test_ids_that_are_not_there_are_named(
    store: VectorStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"b\nc \n\n  \nd\ne\nf\ng\nb\n")))
    assert cli.main(["index", "--store", str(store.folder), "--delete", "-"]) == 0
    said = capsys.readouterr().err
    assert "1 documents deleted" in said and "6 ids not found: 'c ', '  ', 'd', 'e', 'f', ...\n" in said
    assert left(store) == set(IDS) - {"b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids", b"a\n\xff\n", "ids line 2 names no id"),
        ("ids.jsonl", b'"a"\nb\n', "ids.jsonl line 2 names no id"),
        ("ids.jsonl", b'{"text": "a"}\n', "line 1 names no id .*accepted: a JSON string, or an object with id or _id"),
        ("ids.jsonl", b"1\n", "accepted: a JSON string"),
        ("ids.jsonl", b'{"id": true}\n', "line 1 names no id .*accepted: a string or a number"),
        ("ids.jsonl", b'{"id": "a", "_id": "b"}\n', "line 1 names no id .*accepted: one id"),
        ("ids.ndjson", b"a\n", "line 1 names no id .*broken JSON"),
        ("ids.jsonl", b"[" * 100_000 + b"\n", "line 1 names no id"),
    ],
)
def test_lines_that_name_no_id_change_nothing(
    store: VectorStore, tmp_path: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_ids(str(tmp_path / name))
    assert cli.main(["index", "--store", str(store.folder), "--delete", str(tmp_path / name)]) == 2
    assert left(store) == set(IDS)


@pytest.mark.parametrize("number", ["1.5", "1e3", "-0", "0", "12345678901234567890123", "1.50"])
@pytest.mark.parametrize("name", ["ids.jsonl", "ids.ndjson", "ids.json"])
def test_numbers_name_the_id_that_encoding_makes_of_them(tmp_path: Path, number: str, name: str) -> None:
    (tmp_path / name).write_text(f'{{"_id": {number}, "text": "a"}}\n  \n')
    assert read_ids(str(tmp_path / name)) == [document.id for document in DocumentReader(tmp_path / name)] == [number]


def test_a_missing_file_of_ids_is_named(store: VectorStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", "--store", str(store.folder), "--delete", "nowhere"]) == 2
    assert "nowhere is not a file; accepted: a file of ids" in capsys.readouterr().err


@many
@given(ids=st.lists(st.text(min_size=1).filter(lambda id_: "\n" not in id_), unique=True))
def test_any_ids_are_read_back(tmp_path: Path, ids: list[str]) -> None:
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(id_) + "\n" for id_ in ids))
    assert read_ids(str(tmp_path / "ids.jsonl")) == ids
    rows = [json.dumps({"id": int(id_) if id_ in ("1", "20") else id_}, ensure_ascii=False) for id_ in ids]
    (tmp_path / "ids.jsonl").write_bytes("\r\n".join(rows).encode())
    assert read_ids(str(tmp_path / "ids.jsonl")) == ids
    plain = [id_ for id_ in ids if not id_.endswith("\r")]
    (tmp_path / "ids").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(plain).encode())
    assert read_ids(str(tmp_path / "ids")) == plain
