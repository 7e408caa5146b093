"""Tasks by name, folder or Hub id; what is done to their queries; leakage."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from modeling_rabtriever.reranking.prompts import PromptArguments
from modeling_rabtriever.tasks.beir import load_beir, load_hub
from modeling_rabtriever.tasks.named import NamedTask, check_leakage, load_task, named_tasks


def rename(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.parent / "data" / name))


def test_a_folder_and_a_name_below_the_data_folder(beir_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_task(beir_folder).name == "animals"
    rename(beir_folder, "saycan")
    monkeypatch.setenv("RABTRIEVER_DATA", str(beir_folder.parent / "data"))
    assert load_task("saycan").corpus == load_beir(beir_folder).corpus


def test_what_is_left_out_is_said_in_one_line(
    beir_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as file:
        file.write("no JSON\n")
    with (beir_folder / "qrels" / "dev.tsv").open("a") as file:
        file.write("dev-give-0\tgone\t1\n")
    rename(beir_folder, "saycan")
    monkeypatch.setenv("RABTRIEVER_DATA", str(beir_folder.parent / "data"))
    for source, name in ((beir_folder, "animals"), ("saycan", "saycan")):
        with pytest.raises(ValueError, match="corpus.jsonl line 13: broken JSON"):
            load_task(source)
        assert len(load_task(source, skip_bad=True).corpus) == 12
        line = f"{name}: left out bad lines of the corpus (1), judgements of absent documents or queries (1)\n"
        assert capsys.readouterr().out == line


def test_unknown_and_missing_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nothing is not a task; accepted: a folder in BEIR layout, hub:.*esconv"):
        load_task("nothing")
    monkeypatch.setenv("RABTRIEVER_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"ESConv is not on the Hub in BEIR layout, and .* is not a folder"):
        load_task("esconv")


def test_history_is_cut_and_labels_are_taken_out(beir_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = named_tasks()["esconv"]
    chat = "Seeker: a\nSupporter: [Question] b?\nSeeker: c\nSupporter: d\nSeeker: e\nSupporter: f [Others]"
    assert about.prepare(chat) == "Supporter: b?\nSeeker: c\nSupporter: d\nSeeker: e\nSupporter: f"
    assert named_tasks()["saycan"].prepare(chat) == chat

    folder = rename(beir_folder, "esconv")
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    rows = [{**row, "text": f"Supporter: [Question] {row['text']}"} for row in lines]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("RABTRIEVER_DATA", str(folder.parent))
    assert load_task("esconv").split("dev").queries[3] == "Supporter: give me the dog"


@pytest.mark.parametrize("name", named_tasks())
def test_a_named_tasks_wording_is_the_default(name: str) -> None:
    about: NamedTask = named_tasks()[name]
    assert PromptArguments().for_task(name).instruction == about.instruction != PromptArguments().instruction
    own = PromptArguments(instruction="Is it?", document_template="D: {document} ").for_task(name)
    assert (own.instruction, own.document_template) == ("Is it?", "D: {document} ")
    assert own.query_template == about.query_template
    assert PromptArguments().for_task("some/folder") == PromptArguments()


def test_queries_of_another_split_are_refused_or_reported(beir_folder: Path) -> None:
    queries = beir_folder / "queries.jsonl"
    assert check_leakage(load_beir(beir_folder)) == {}
    queries.write_text(queries.read_text().replace("want me the ant", "find me the ant"))
    assert check_leakage(load_beir(beir_folder)) == {"train in test": 1 / 36, "test in train": 1 / 24}  # let pass
    queries.write_text(queries.read_text().replace("want me the bear", "find me the bear"))
    with pytest.raises(
        ValueError, match=r"animals: 2 of 24 queries of test are also in train, such as 'find me the ant'"
    ):
        load_task(beir_folder)


def test_queries_that_hold_labels_are_refused(beir_folder: Path) -> None:
    """A chat whose lines still say which strategy, here which animal's story, each of them was."""
    queries, corpus = beir_folder / "queries.jsonl", beir_folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"a story about the ant"', '"Ant story: of an ant."'))
    queries.write_text(queries.read_text().replace("want me the ant", "[ant story] want me the ant"))
    assert load_task(beir_folder).split("test").queries[0] == "[ant story] want me the ant"  # one of 24 is let pass
    queries.write_text(queries.read_text().replace("want me the bear", "want me [1] the bear [ANT story ]"))
    with pytest.raises(
        ValueError, match=r"2 of 24 queries of test name a document in square brackets, such as '\[ant story"
    ):
        load_task(beir_folder)


def test_a_few_repeated_queries_are_let_pass_and_reported(beir_folder: Path) -> None:
    queries, qrels = (beir_folder / name for name in ("queries.jsonl", "qrels/test.tsv"))
    with queries.open("a") as file, qrels.open("a") as judgements:
        for number in range(80):
            file.write(json.dumps({"_id": f"more-{number}", "text": f"more {number}"}) + "\n")
            judgements.write(f"more-{number}\td0\t1\n")
        file.write(json.dumps({"_id": "again", "text": "give me the dog"}) + "\n")
        judgements.write("again\td3\t1\n")
    task = load_beir(beir_folder)
    with pytest.raises(ValueError, match="1 of 12 queries of dev are also in test"):  # the other way it is too much
        check_leakage(task)
    del task.splits["dev"], task.splits["train"]
    assert check_leakage(task) == {}


def data_set(folder: Path, beir_folder: Path, qrels: str) -> Path:
    """A data set as the Hub has it: Parquet, with its configurations named in the README."""
    configs = {name: {name: beir_folder / f"{name}.jsonl"} for name in ("corpus", "queries")}
    configs[qrels] = {split: beir_folder / "qrels" / f"{split}.tsv" for split in ("train", "test")}
    readme = ["---", "configs:"]
    for config, files in configs.items():
        readme += [f"- config_name: {config}", "  data_files:"]
        for split, path in files.items():
            rows = Dataset.from_json(str(path)) if path.suffix == ".jsonl" else Dataset.from_csv(str(path), sep="\t")
            rows.to_parquet(folder / config / f"{split}.parquet")
            readme += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*readme, "---", ""]))
    return folder


@pytest.mark.parametrize("qrels", ["default", "qrels"])
def test_a_data_set_of_the_hub(beir_folder: Path, tmp_path: Path, qrels: str) -> None:
    task = load_task(f"hub:{data_set(tmp_path / 'hub' / 'animals', beir_folder, qrels)}")
    local = load_beir(beir_folder)
    assert task.name == "animals" and task.corpus == local.corpus and task.splits.keys() == {"train", "test"}
    assert task.split("test") == local.split("test")


def test_a_data_set_of_the_hub_in_json_lines_is_read_as_it_stands(tmp_path: Path) -> None:
    """Ids and texts that a table's reader takes for missing values and dates; a judgement of an absent document."""
    folder = tmp_path / "dates"
    files = {"corpus": [{"_id": "null", "text": "2020-01-01"}], "queries": [{"_id": "NA", "text": "None"}]}
    files["default"] = [{"query-id": "NA", "corpus-id": document, "score": 1.0} for document in ("null", "gone")]
    readme = ["---", "configs:"]
    for name, rows in files.items():
        readme += [f"- config_name: {name}", "  data_files:", "  - split: test", f"    path: {name}.jsonl"]
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text("\n".join([*readme, "---", ""]))
    with pytest.raises(ValueError, match="default.jsonl line 2 names document 'gone', which is not in the corpus"):
        load_hub(str(folder))
    task = load_hub(folder, skip_bad=True)
    assert (task.corpus_ids, task.corpus) == (["null"], ["2020-01-01"])
    split = task.split("test")
    assert (split.query_ids, split.queries, split.relevant) == (["NA"], ["None"], [{0: 1}])
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nNA\tnull\t1\n")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("default.jsonl", "qrels.tsv"))
    assert load_hub(str(folder)).splits == task.splits
    (folder / "README.md").write_text(card)
    (folder / "default.jsonl").write_text('{"query-id": "NA", "corpus-id": "null", "score": 0.5}\n')
    with pytest.raises(ValueError, match="default.jsonl line 1 has the score '0.5'; accepted: whole numbers"):
        load_hub(str(folder))
    (folder / "default.jsonl").write_text('{"query-id": "NA", "corpus-id": "null"}\n')
    with pytest.raises(ValueError, match="default.jsonl line 1 is .*; accepted: an object with query-id, corpus-id, s"):
        load_hub(str(folder))


def test_other_layouts_are_refused(beir_folder: Path, tmp_path: Path) -> None:
    folder = data_set(tmp_path / "other", beir_folder, "judgements")
    with pytest.raises(ValueError, match=r"has the configurations .*accepted: corpus, queries, and default or qrels"):
        load_hub(str(folder))
