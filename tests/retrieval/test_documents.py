"""Documents as they come in: good ones, bad lines, parts of a file."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_rabtriever.retrieval import Document, DocumentReader
from modeling_rabtriever.retrieval.documents import document_text

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
    with pytest.raises(ValueError, match="broken.parquet is not a Parquet file"):
        list(DocumentReader(tmp_path / "broken.parquet"))


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
        ('{"id": "x", "text": "y", "text": "z"}', r"c.jsonl line 2: broken JSON \(the key 'text' stands twice\)"),
        ('["x"]', r"line 2: \"\['x'\]\" is not an object"),
        ({"text": "x"}, "line 2: the id is missing or blank"),
        ({"id": " ", "text": "x"}, "line 2: the id is missing or blank"),
        ({"id": "x"}, "line 2: the document 'x' has no text"),
        ({"id": "x", "text": " "}, "line 2: the document 'x' has no text"),
        ({"id": "x", "text": ["a"]}, "line 2: title or text is not a string"),
        ({"id": "a", "text": "again"}, "line 2: the id 'a' occurs twice"),
    ],
)
def test_bad_lines_are_named_or_counted(tmp_path: Path, line: object, message: str) -> None:
    path = jsonl(tmp_path / "c.jsonl", ROWS[0], line, ROWS[2])
    with pytest.raises(ValueError, match=message):
        list(DocumentReader(path))
    reader = DocumentReader(path, skip_bad=True)
    assert [document.id for document in reader] == ["a", "c"] and reader.skipped == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "x", "text": "y", "score": NaN}', "line 2: broken JSON (NaN is not JSON)"),
        (b'{"id": "x", "text": "y", "score": 1e999}', "line 2: broken JSON (the number 1e999 is too large)"),
        (b'{"id": "x", "text": "\\ud800"}', "line 2: broken text (half of a surrogate pair"),
        (b'{"id": "x\\udc00", "text": "y"}', "line 2: broken text (half of a surrogate pair"),
        (b'{"id": "x", "text": "\xff"}', "line 2: not UTF-8 (byte 21 of the line)"),
        (
            b'{"id": "x", "text": "y", "deep": ' + b"[" * 100_000,
            "line 2: broken JSON (objects or lists nested too deep)",
        ),
        (b'{"id": null, "text": "y"}', "line 2: the id is missing or blank"),
        (b'{"id": true, "text": "y"}', "line 2: the id is True; accepted: a string or a number"),
        (b'{"id": ["x"], "text": "y"}', "line 2: the id is ['x']; accepted: a string or a number"),
        (b'{"id": {"x": 1}, "text": "y"}', "line 2: the id is {'x': 1}; accepted: a string or a number"),
        (b'{"id": "x", "_id": "z", "text": "y"}', "line 2: id is 'x' and _id is 'z'; accepted: one id"),
        (b'{"id": "x", "text": "y", "title": 0}', "line 2: title or text is not a string; accepted: strings"),
        (b'{"id": "x", "text": false, "title": "y"}', "line 2: title or text is not a string; accepted: strings"),
    ],
)
def test_lines_that_other_readers_take_for_something(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + line + b"\n" + json.dumps(ROWS[2]).encode() + b"\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        list(DocumentReader(path))
    reader = DocumentReader(path, skip_bad=True)
    assert [document.id for document in reader] == ["a", "c"] and reader.skipped == 1


def test_ids_and_texts_are_what_stands_there(tmp_path: Path) -> None:
    ids = ["NA", "null", "nan", "None", "2020-01-01", " a", "true", "1", "\u00a0b"]
    rows = [f'{{"_id": {json.dumps(id_)}, "text": "2020-01-01"}}' for id_ in ids]
    rows += [f'{{"id": {number}, "text": "null"}}' for number in ("7", "1.0", "1e3", "-0", "9" * 30)]
    documents = list(DocumentReader(jsonl(tmp_path / "c.jsonl", *rows)))
    assert [document.id for document in documents] == [*ids, "7", "1.0", "1e3", "-0", "9" * 30]
    assert {document.text for document in documents} == {"2020-01-01", "null"}


def test_a_byte_order_mark_is_dropped_and_line_separators_inside_a_text_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    lines = ['\ufeff{"id": "a", "text": "x\u2028y\x85z"}', "", '{"id": "b", "text": "w"}', ""]
    path.write_bytes("\r\n".join(lines).encode())
    expected = [Document("a", "x\u2028y\x85z"), Document("b", "w")]
    reader = DocumentReader(path)
    assert list(reader) == expected and len(reader) == 2
    parts = [DocumentReader(path, span=span) for span in reader.spans(1)]
    assert [document for part in parts for document in part] == expected


def test_metadata_that_is_no_object_is_a_field(tmp_path: Path) -> None:
    (document,) = DocumentReader(jsonl(tmp_path / "c.jsonl", {"id": "a", "text": "x", "metadata": "kept"}))
    assert document.metadata == {"metadata": "kept"}


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [("T", "x", "T x"), ("T ", " x\n", "T x"), (None, "x ", "x"), ("", "x", "x"), (" ", "x", "x"), ("T", None, "T")],
)
def test_title_and_text_are_one_text(title: str | None, text: str | None, expected: str) -> None:
    assert document_text(title, text) == expected


def test_numbers_parquet_has_none_for(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        {"id": 1.0, "text": "a", "size": nan, "sizes": [1.0, nan]},
        {"id": 2.0, "text": "b", "size": inf, "sizes": None},
        {"id": nan, "text": "c", "size": 1.0, "sizes": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    reader = DocumentReader(tmp_path / "c.parquet", skip_bad=True)
    assert list(reader) == [Document("1.0", "a", {"sizes": [1.0, None]})] and reader.skipped == 2
    with pytest.raises(ValueError, match="c.parquet row 2: a number is inf; accepted: finite numbers"):
        list(DocumentReader(tmp_path / "c.parquet"))


def test_a_parquet_text_that_is_no_utf8_is_one_bad_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"id": ["x", "y", "z"], "text": texts}), tmp_path / "c.parquet")
    reader = DocumentReader(tmp_path / "c.parquet", skip_bad=True)
    assert [document.id for document in reader] == ["x", "z"] and reader.skipped == 1
    with pytest.raises(ValueError, match="c.parquet row 2: a value cannot be read"):
        list(DocumentReader(tmp_path / "c.parquet"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_broken_parquet_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.parquet"
    rows = [{"id": f"d{row}", "text": f"text {row} " * 20} for row in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[200:210] = bytes(10)
    path.write_bytes(content if damage == "flipped" else content[:2000])
    with pytest.raises(ValueError, match=r"c.parquet is (broken after row 0|not a Parquet file)"):
        list(DocumentReader(path))


def test_the_reader_needs_no_library_of_the_store() -> None:
    code = (
        "import modeling_rabtriever.retrieval.documents, sys; print({'lancedb', 'faiss', 'datasets'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_unusable_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.jsonl is not a file; accepted"):
        DocumentReader(tmp_path / "nowhere.jsonl")
    (tmp_path / "c.csv").write_text("id,text\n")
    with pytest.raises(ValueError, match="ends in '.csv'; accepted: .jsonl"):
        DocumentReader(tmp_path / "c.csv")
    (tmp_path / "c.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in '.gz'; accepted: .*; not compressed"):
        DocumentReader(tmp_path / "c.jsonl.gz")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "a", "text": "\xff"}\n')
    with pytest.raises(ValueError, match="bytes.jsonl line 1: not UTF-8"):
        list(DocumentReader(tmp_path / "bytes.jsonl"))
