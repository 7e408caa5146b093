"""The BEIR loader: what it reads and what it refuses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_rabtriever.demo.documents import uploaded_texts
from modeling_rabtriever.retrieval import DocumentReader
from modeling_rabtriever.tasks.beir import load_beir, with_unlabelled

STRINGS = ["2020-01-01", "NA", "null", "nan", "None", "true", "007", "1.0", " a", "2020-01-01T00:00:00Z"]


def write_task(folder: Path, corpus: list[object], queries: list[object], qrels: str) -> Path:
    """A task with one split; a document or query may be given as its line."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_reads_corpus_queries_and_splits(beir_folder: Path) -> None:
    task = load_beir(beir_folder)
    assert task.name == "animals" and len(task.corpus) == 12
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 36, "dev": 12, "test": 24}
    assert task.split("dev").queries[3] == "give me the dog" and task.split("dev").relevant[3] == {3: 1}
    assert task.split("test").take([0, 2]).query_ids == ["test-want-0", "test-want-2"]
    with pytest.raises(ValueError, match="has no split 'eval'; accepted: dev, test, train"):
        task.split("eval")


def test_title_joins_the_text_and_ids_stay_strings(beir_folder: Path) -> None:
    (beir_folder / "corpus.jsonl").write_text('{"_id": "007", "title": "Ants", "text": "live in hills"}\n')
    (beir_folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\ntrain-find-0\t007\t2\n")
    for name in ("dev", "test"):
        (beir_folder / "qrels" / f"{name}.tsv").unlink()
    task = load_beir(beir_folder)
    assert (task.corpus, task.corpus_ids) == (["Ants live in hills"], ["007"])
    assert task.split("train").relevant == [{0: 2}]


def test_judgements_of_zero_are_not_relevant(beir_folder: Path) -> None:
    path = beir_folder / "qrels" / "dev.tsv"
    path.write_text(path.read_text() + "dev-give-0\td5\t0\n")
    assert load_beir(beir_folder).split("dev").relevant[0] == {0: 1}


def test_fingerprint_follows_the_content(beir_folder: Path) -> None:
    before = load_beir(beir_folder).fingerprint()
    assert load_beir(beir_folder).fingerprint() == before
    path = beir_folder / "queries.jsonl"
    path.write_text(path.read_text().replace("find me the ant", "find me an ant"))
    assert load_beir(beir_folder).fingerprint() != before


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_files_are_named(beir_folder: Path, name: str) -> None:
    (beir_folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing; accepted"):
        load_beir(beir_folder)


def test_missing_judgements_are_named(beir_folder: Path) -> None:
    for path in (beir_folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"qrels holds no .tsv file; accepted"):
        load_beir(beir_folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "d0", "text": "again"}, "corpus.jsonl line 13: the id 'd0' occurs twice"),
        ({"_id": "d12", "text": " "}, r"corpus.jsonl line 13: the document 'd12' has no text"),
        ({"_id": None, "text": "x"}, "corpus.jsonl line 13: the id is missing or blank; accepted: a field id or _id"),
    ],
)
def test_broken_documents_are_named(beir_folder: Path, row: dict[str, str], message: str) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        load_beir(beir_folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nobody\td0\t1\n", "names query 'nobody', which is not in the queries; accepted: .*--skip_bad true"),
        (
            "dev-give-0\tnothing\t1\n",
            "names document 'nothing', which is not in the corpus; accepted: .*--skip_bad true",
        ),
    ],
)
def test_unknown_ids_are_named(beir_folder: Path, line: str, message: str) -> None:
    with (beir_folder / "qrels" / "dev.tsv").open("a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=f"dev.tsv line 14 {message}"):
        load_beir(beir_folder)


def test_a_split_without_relevant_documents_is_refused(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\ndev-give-0\td0\t0\n")
    with pytest.raises(ValueError, match="judges no document relevant"):
        load_beir(beir_folder)


def test_ids_and_texts_are_what_stands_there(tmp_path: Path) -> None:
    rows = [{"_id": text, "text": text} for text in STRINGS]
    judgements = "".join(f"{text}\t{text}\t1\n" for text in STRINGS)
    task = load_beir(write_task(tmp_path, rows, rows, "query-id\tcorpus-id\tscore\n" + judgements))
    assert task.corpus_ids == STRINGS and task.corpus == [text.strip() for text in STRINGS]
    split = task.split("test")
    assert split.query_ids == STRINGS and split.relevant == [{row: 1} for row in range(len(STRINGS))]


def test_numbers_are_ids_by_their_text(tmp_path: Path) -> None:
    rows = ['{"_id": 7, "text": "x"}', '{"_id": 1.0, "text": "y"}']
    task = load_beir(write_task(tmp_path, rows, rows, "7\t1.0\t1\n1.0\t7\t1\n"))
    assert task.corpus_ids == ["7", "1.0"] and task.split("test").relevant == [{1: 1}, {0: 1}]


def test_a_title_that_first_stands_late_in_a_large_corpus_is_read(tmp_path: Path) -> None:
    rows = [{"_id": f"d{row}", "text": "a b c d " * 1_000} for row in range(1_500)]  # 12 MB
    rows.append({"_id": "last", "text": "text", "title": "Title", "metadata": {"year": 1}})
    task = load_beir(write_task(tmp_path, rows, [{"_id": "q", "text": "x"}], "q\tlast\t1\n"))
    assert len(task.corpus) == 1_501 and task.corpus[-1] == "Title text"


def test_content_counts_and_not_the_time_of_a_file(beir_folder: Path) -> None:
    path = beir_folder / "corpus.jsonl"
    before, status = load_beir(beir_folder), path.stat()
    path.write_text(path.read_text().replace("the ant", "the bat"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_beir(beir_folder).corpus[0] == "a story about the bat" != before.corpus[0]


def test_all_readers_make_one_text_of_a_document(tmp_path: Path) -> None:
    rows = [
        {"_id": "a", "title": "Ants ", "text": "  live in hills\n"},
        {"_id": "b", "title": None, "text": "x"},
        {"_id": "c", "title": " ", "text": "y\u2028z"},
        {"_id": "d", "title": "T"},
    ]
    task = load_beir(write_task(tmp_path, rows, [{"_id": "q", "text": "x"}], "q\ta\t1\n"))
    assert task.corpus == ["Ants live in hills", "x", "y\u2028z", "T"]
    assert task.corpus == [document.text for document in DocumentReader(tmp_path / "corpus.jsonl")]
    assert task.corpus == uploaded_texts(tmp_path / "corpus.jsonl")


@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 1), (1, 2), (-1, 0)])
def test_two_grades_of_one_pair_are_refused_with_both_lines(beir_folder: Path, first: int, second: int) -> None:
    path = beir_folder / "qrels" / "dev.tsv"
    path.write_text(path.read_text() + f"dev-give-0\td5\t{first}\ndev-give-1\td7\t1\ndev-give-0\td5\t{second}\n")
    message = (
        f"dev.tsv line 16 gives query 'dev-give-0' and document 'd5' the score {second}, .*dev.tsv line 14 {first}; "
        "accepted: one score per pair"
    )
    with pytest.raises(ValueError, match=message):
        load_beir(beir_folder)


def test_a_judgement_repeated_is_one(beir_folder: Path) -> None:
    before = load_beir(beir_folder).fingerprint()
    path = beir_folder / "qrels" / "dev.tsv"
    path.write_text(path.read_text() + "dev-give-0\td0\t1\n")
    assert load_beir(beir_folder).fingerprint() == before


def test_what_is_bad_is_left_out_and_counted(tmp_path: Path) -> None:
    documents = [{"_id": "a", "text": "x"}, {"_id": "b", "text": " "}, "{", {"_id": "c", "text": "z"}]
    queries = [{"_id": name, "text": name} for name in ("whole", "half", "none", "zero")] + ["[]"]
    judgements = ["whole a 1", "half b 1", "half c 1", "none b 2", "none gone 1", "nobody a 1", "zero gone 0"]
    folder = write_task(tmp_path / "public", documents, queries, "".join(f"{line}\n" for line in judgements))
    with pytest.raises(ValueError, match="corpus.jsonl line 2: the document 'b' has no text"):
        load_beir(folder)
    task = load_beir(folder, skip_bad=True)
    assert task.corpus_ids == ["a", "c"]
    assert task.split("test").query_ids == ["whole", "half"] and task.split("test").relevant == [{0: 1}, {1: 1}]
    assert task.left_out == {
        "bad lines of the corpus": 2,
        "bad lines of the queries": 1,
        "judgements of absent documents or queries": 5,
        "queries without a relevant document left": 1,
    }


def test_nothing_left_out_is_no_difference(beir_folder: Path) -> None:
    assert load_beir(beir_folder, skip_bad=True) == load_beir(beir_folder)


def test_a_malformed_judgement_is_never_skipped(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "dev.tsv").write_text("dev-give-0\td0\t1.5\n")
    with pytest.raises(ValueError, match="dev.tsv line 1 has the score '1.5'; accepted: whole numbers"):
        load_beir(beir_folder, skip_bad=True)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_folder_with_one_split_is_a_task(beir_folder: Path, split: str) -> None:
    for path in (beir_folder / "qrels").iterdir():
        if path.stem != split:
            path.unlink()
    assert list(load_beir(beir_folder).splits) == [split]


def test_only_plain_files_are_splits(beir_folder: Path) -> None:
    (beir_folder / "qrels" / "._train.tsv").write_bytes(b"\0\5\x16\7 Mac OS X")  # what macOS puts into archives
    (beir_folder / "qrels" / "more.tsv").mkdir()
    assert load_beir(beir_folder).splits.keys() == {"train", "dev", "test"}


def test_a_compressed_corpus_is_named(beir_folder: Path) -> None:
    (beir_folder / "corpus.jsonl").rename(beir_folder / "corpus.jsonl.gz")
    with pytest.raises(ValueError, match=r"corpus.jsonl is missing \(corpus.jsonl.gz must be unpacked\); accepted"):
        load_beir(beir_folder)


def test_a_log_of_queries(beir_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, path = load_beir(beir_folder).split("train"), beir_folder / "log.jsonl"
    path.write_text('{"_id": "NA", "text": "2020-01-01"}\n{"_id": "x", "text": "\\ud800"}\n')
    with pytest.raises(ValueError, match=r"log.jsonl line 2: broken text \(half of a surrogate pair"):
        with_unlabelled(train, path)
    more = with_unlabelled(train, path, skip_bad=True)
    assert (more.query_ids[-1], more.queries[-1], more.relevant[-1]) == ("NA", "2020-01-01", {})
    assert len(more) == 37 and capsys.readouterr().out == f"{path}: left out bad lines (1)\n"
    path.write_text('{"_id": "train-find-0", "text": "x"}\n')
    with pytest.raises(ValueError, match="has the id train-find-0, which the split train has too; accepted: other ids"):
        with_unlabelled(train, path, skip_bad=True)


values = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3) | st.lists(st.none())
rows = st.dictionaries(st.sampled_from(["_id", "id", "title", "text", "metadata"]), values, max_size=4)
good = st.fixed_dictionaries({"_id": st.sampled_from(["a", "b", "1", 1]), "text": st.sampled_from(["x", "y z"])})
lines = st.lists((good | good | rows).map(json.dumps) | st.sampled_from(["", "{", '"', "null"]), max_size=4)
fields = st.sampled_from(["a", "b", "1", "1.0", "0", "-1", "query-id", "corpus-id", "score", "\t", " ", "\n", "\n"])


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(corpus=lines, queries=lines, qrels=st.lists(fields, max_size=20).map("".join), skip_bad=st.booleans())
def test_any_task_is_read_or_refused(
    tmp_path: Path, corpus: list[Any], queries: list[Any], qrels: str, skip_bad: bool
) -> None:
    folder = write_task(tmp_path, corpus, queries, qrels)
    try:
        task = load_beir(folder, skip_bad)
    except ValueError as error:
        assert "accepted: " in str(error) and str(folder) in str(error)  # noqa: PT017
        return
    split = task.split("test")
    assert len(set(task.corpus_ids)) == len(task.corpus) and all(map(str.strip, (*task.corpus, *split.queries)))
    assert all(relevant and min(relevant.values()) > 0 for relevant in split.relevant)
