"""Data sets laid out as on the Hub: which files they are made of, read as they stand."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_rabtriever.retrieval import Document, DocumentReader
from modeling_rabtriever.retrieval.hub_files import HubDataSet

ROWS = [{"_id": "NA", "text": "2020-01-01"}, {"_id": "null", "text": "null"}, {"_id": "1.0", "title": "T", "text": "x"}]
EXPECTED = [Document("NA", "2020-01-01"), Document("null", "null"), Document("1.0", "T x")]


def readme(folder: Path, *lines: str) -> None:
    (folder / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Judgements as the default configuration, a corpus in two Parquet files, queries as JSON lines in a folder."""
    folder = tmp_path / "set"
    columns = [{"_id": row["_id"], "title": row.get("title", ""), "text": row["text"]} for row in ROWS]
    write(folder / "corpus" / "corpus-00000-of-00002.parquet", columns[:2])
    write(folder / "corpus" / "corpus-00001-of-00002.parquet", columns[2:])
    write(folder / "asked" / "queries.jsonl", ROWS[:1])
    write(folder / "qrels" / "test.jsonl", [{"query-id": "NA", "corpus-id": "null"}])
    readme(
        folder,
        *("- config_name: default", "  data_files:", "  - split: test", "    path: qrels/test.jsonl"),
        *("- config_name: corpus", "  data_files:", "  - split: corpus", "    path: corpus/corpus-*"),
        *("- config_name: queries", "  data_dir: asked", "  data_files: '**/*.jsonl'"),
    )
    return folder


def test_configurations_and_splits(folder: Path) -> None:
    found = HubDataSet(str(folder))
    assert found.configurations == ["default", "corpus", "queries"]
    assert found.files("default") == {"test": [folder / "qrels" / "test.jsonl"]}
    assert found.files("queries") == {"train": [folder / "asked" / "queries.jsonl"]}
    assert found.part("test") == [folder / "qrels" / "test.jsonl"]
    assert [path.name for path in found.part("corpus")] == [f"corpus-0000{part}-of-00002.parquet" for part in (0, 1)]
    with pytest.raises(ValueError, match=r"set has no configuration 'other'; accepted: default, corpus, queries"):
        found.files("other")


def test_documents_of_a_part(folder: Path) -> None:
    assert list(DocumentReader(f"hub:{folder}:corpus")) == EXPECTED
    assert list(DocumentReader(f"hub:{folder}:queries")) == EXPECTED[:1]
    with pytest.raises(
        ValueError, match=r"set:train is neither a split nor a configuration; accepted: hub:.*:test, hub:"
    ):
        list(DocumentReader(f"hub:{folder}"))


def test_a_folder_may_be_named_from_where_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "corpus")
    assert list(DocumentReader("hub:..:corpus")) == EXPECTED


def test_a_bad_row_is_named_with_its_file(folder: Path) -> None:
    write(folder / "corpus" / "corpus-00001-of-00002.parquet", [{"_id": "x", "text": " "}, {"_id": "NA", "text": "y"}])
    with pytest.raises(ValueError, match=r"set:corpus corpus/corpus-00001-of-00002.parquet row 1: .* has no text"):
        list(DocumentReader(f"hub:{folder}:corpus"))
    reader = DocumentReader(f"hub:{folder}:corpus", skip_bad=True)
    assert list(reader) == EXPECTED[:2] and reader.skipped == 2  # the id NA is in the other file already


def test_a_data_set_without_a_card_has_splits_by_the_names_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.jsonl", ROWS)
    write(tmp_path / "data" / "test.jsonl", ROWS[:1])
    (tmp_path / "data" / "train.txt").write_text("how it was made")
    assert HubDataSet(str(tmp_path)).configurations == ["default"]
    assert list(DocumentReader(f"hub:{tmp_path}")) == EXPECTED
    assert list(DocumentReader(f"hub:{tmp_path}:test")) == EXPECTED[:1]


def test_a_part_is_read_whatever_the_others_are(folder: Path) -> None:
    """Judgements are the default configuration, and no documents."""
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("test.jsonl", "test.csv"))
    assert list(DocumentReader(f"hub:{folder}:corpus")) == EXPECTED


def test_a_lost_file_is_named(folder: Path) -> None:
    (folder / "corpus" / "corpus-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"lacks .*corpus-00001-of-00002.parquet; accepted: all 2 files"):
        list(DocumentReader(f"hub:{folder}:corpus"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["- config_name: default", "  data_files: c.csv"], r"holds c.csv; accepted: files that end in .jsonl"),
        (["- config_name: default", "  data_files: gone.jsonl"], r"cannot be read \(FileNotFoundError: .*gone.jsonl"),
        (["- config_name: default", "  data_files: gone-*.jsonl"], r"holds no files of default train"),
        (["- config_name: default", "  data_files: 7"], r"cannot be read \(ValueError: "),
        (["- config_name: [unclosed"], r"cannot be read \("),
        (["- config_name: default", "  data_files: ../c.jsonl"], r"its file '../c.jsonl'; accepted: files of the data"),
        (["- config_name: default", "  data_files: /etc/c.jsonl"], r"its file '/etc/c.jsonl'; accepted: files of the"),
        (["- config_name: default", "  data_files: 'https://x.org/c.jsonl'"], r"its file 'https://x.org/c.jsonl'"),
        (["- config_name: default", "  data_files: [{split: train, path: [7]}]"], r"its file 7; accepted: files of"),
        (["- config_name: default", "  data_dir: 7"], r"its file 7; accepted: files of the data set itself"),
        (["- config_name: 7", "  data_files: c.csv"], r"holds c.csv; accepted"),
        (["- config_name: default", "  data_dir: ../x"], r"its file '../x'; accepted: files of the data set itself"),
    ],
)
def test_unusable_data_sets_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "c.csv").write_text("id,text\n")
    readme(tmp_path, *lines)
    with pytest.raises(ValueError, match=message):
        list(DocumentReader(f"hub:{tmp_path}"))


def test_a_data_set_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(ValueError, match=r"hub:nobody/nothing cannot be read \(.*; accepted: a data set of the Hub"):
        list(DocumentReader("hub:nobody/nothing"))
    with pytest.raises(ValueError, match=r"hub:a/b/c/d cannot be read \(HFValidationError"):
        list(DocumentReader("hub:a/b/c/d"))
    with pytest.raises(ValueError, match="hub: names no data set"):
        list(DocumentReader("hub:"))
