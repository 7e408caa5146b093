"""Documents as they come in: good ones, bad lines, parts of a file."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_rabtriever.retrieval import Document, DocumentReader

ROWS = [
    {"_id": "a", "title": "Sponge", "text": " soaks ", "room": "kitchen"},
    {"id": 2, "text": "a lamp", "metadata": {"room": "attic", "old": None}},
    {"id": "c", "title": None, "text": "ünïcode"},
]
EXPECTED = [
    Document("a", "Sponge soaks", {"room": "kitchen"}),
    Document("2", "a lamp", {"room": "attic"}),
    Document("c", "ünïcode", {}),
]


def jsonl(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "c.jsonl", ROWS[0], "", ROWS[1], ROWS[2])
    reader = DocumentReader(path)
    assert list(reader) == EXPECTED == list(reader) and len(reader) == 3

    class Stdin:
        buffer = io.BytesIO(path.read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    piped = DocumentReader("-")
    assert list(piped) == EXPECTED
    with pytest.raises(TypeError, match="the length of - is not known"):
        len(piped)


def test_parquet(tmp_path: Path) -> None:
    rows = [{"id": f"d{row}", "text": f"text {row}", "size": row} for row in range(25)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=10)
    reader = DocumentReader(tmp_path / "c.parquet")
    assert len(reader) == 25
    assert list(reader)[7] == Document("d7", "text 7", {"size": 7})
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="broken.parquet is no Parquet file"):
        list(DocumentReader(tmp_path / "broken.parquet"))


def test_a_hub_data_set_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, split: str, streaming: bool) -> list[dict[str, object]]:
        assert (name, split, streaming) == ("org/name", "test", True)
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(DocumentReader("hub:org/name:test")) == EXPECTED


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_parts_of_a_file_are_the_whole(tmp_path: Path, kind: str) -> None:
    rows = [{"id": f"d{row}", "text": f"text ü {row}"} for row in range(25)]
    path = tmp_path / f"c.{kind}"
    if kind == "jsonl":
        jsonl(path, *rows[:5], "broken", *rows[5:], rows[3])
    else:
        pq.write_table(pa.Table.from_pylist([*rows[:5], {"id": "x", "text": " "}, *rows[5:], rows[3]]), path, 4)
    reader = DocumentReader(path, skip_bad=True)
    spans = list(reader.spans(10))
    assert reader.skipped == 2 and len(spans) == 3
    parts = [list(DocumentReader(path, skip_bad=True, span=span)) for span in spans]
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [document for part in parts for document in part] == list(reader)
    with pytest.raises(ValueError, match="- cannot be read in parts"):
        list(DocumentReader("-").spans(3))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", "text": ', r"c.jsonl line 2: broken JSON"),
        ('["x"]', r"line 2: \"\['x'\]\" is no object"),
        ({"text": "x"}, "line 2: the id is missing or blank"),
        ({"id": " ", "text": "x"}, "line 2: the id is missing or blank"),
        ({"id": "x"}, "line 2: the document 'x' has no text"),
        ({"id": "x", "text": " "}, "line 2: the document 'x' has no text"),
        ({"id": "x", "text": ["a"]}, "line 2: title or text is no text"),
        ({"id": "a", "text": "again"}, "line 2: the id 'a' occurs twice"),
    ],
)
def test_bad_lines_are_named_or_counted(tmp_path: Path, line: object, message: str) -> None:
    path = jsonl(tmp_path / "c.jsonl", ROWS[0], line, ROWS[2])
    with pytest.raises(ValueError, match=message):
        list(DocumentReader(path))
    reader = DocumentReader(path, skip_bad=True)
    assert [document.id for document in reader] == ["a", "c"] and reader.skipped == 1


def test_unusable_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.jsonl is no file; accepted"):
        DocumentReader(tmp_path / "nowhere.jsonl")
    (tmp_path / "c.csv").write_text("id,text\n")
    with pytest.raises(ValueError, match="ends in '.csv'; accepted: .jsonl"):
        DocumentReader(tmp_path / "c.csv")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "a", "text": "\xff"}\n')
    with pytest.raises(ValueError, match="bytes.jsonl line 1: broken JSON"):
        list(DocumentReader(tmp_path / "bytes.jsonl"))
