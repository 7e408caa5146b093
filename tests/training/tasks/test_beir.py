"""The BEIR loader: what it reads and what it refuses."""

import json
from pathlib import Path

import pytest

from training.tasks.beir import load_beir


def test_reads_corpus_queries_and_splits(beir_folder: Path) -> None:
    task = load_beir(beir_folder)
    assert task.name == "animals" and len(task.corpus) == 12
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 36, "dev": 12, "test": 24}
    assert task.split("dev").queries[3] == "give me the dog" and task.split("dev").relevant[3] == {3: 1}
    assert task.split("test").take([0, 2]).query_ids == ["test-want-0", "test-want-2"]
    with pytest.raises(ValueError, match="has no split 'eval'; it has: dev, test, train"):
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
        ({"_id": "d0", "text": "again"}, "line 13: the id d0 occurs twice"),
        ({"_id": "d12", "text": " "}, r"line 13 \(d12\) has no text"),
        ({"_id": "d12", "text": None}, 'accepted: an object with "_id" and "text"'),
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
        ("nobody\td0\t1\n", "names query 'nobody', which queries.jsonl lacks"),
        ("dev-give-0\tnothing\t1\n", "names document 'nothing', which corpus.jsonl lacks"),
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
