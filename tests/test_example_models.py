"""The models in the package: small, without code, as good as their task says, and renewed from a run."""

from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, example
from modeling_rabtriever.tasks import load_beir, write_household
from training import example_models


def test_they_are_small_and_hold_no_code() -> None:
    folder = Path(example("household")).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 8e6


def test_they_find_what_a_request_needs(tmp_path: Path) -> None:
    data = write_household(tmp_path / "household")
    packaged = Path(example("household")).parent / "corpus.jsonl"
    assert packaged.read_text() == (data / "corpus.jsonl").read_text()
    task = load_beir(data)
    split = task.split("test")
    student = RabtrieverModel.from_pretrained(example("household"))
    scores = student.similarity(student.encode_query(split.queries[::8]), student.encode_document(task.corpus))
    best = scores.argmax(-1).tolist()
    found = [row in relevant for row, relevant in zip(best, split.relevant[::8], strict=True)]
    assert sum(found) / len(found) > 0.9
    teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
    documents = ["bring the sponge to the kitchen", "bring the lantern to the kitchen", "bring the sponge to the attic"]
    assert teacher.rank("In the kitchen: I spilled my drink.", documents)[0]["corpus_id"] == 0


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name is 'office', kind is 'student'; accepted: household/student, household"):
        example("office")
    with pytest.raises(ValueError, match="kind is 'other'; accepted"):
        example("household", "other")


def test_a_run_renews_them(reranker: GenerativeRerankerModel, student: RabtrieverModel, tmp_path: Path) -> None:
    for kind, model in (("student", student), ("teacher", reranker)):
        model.save_pretrained(tmp_path / f"run/{kind}/model")
        (tmp_path / f"package/{kind}").mkdir(parents=True)
        (tmp_path / f"package/{kind}/old.json").write_text("{}")
    corpus = tmp_path / "run/data/household/corpus.jsonl"
    corpus.parent.mkdir(parents=True)
    corpus.write_text("{}")
    example_models.main([str(tmp_path / "run")], tmp_path / "package")
    names = {path.name for path in (tmp_path / "package/student").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    assert not any(name.endswith(".py") or name == "old.json" for name in names)
    assert (tmp_path / "package/corpus.jsonl").read_text() == "{}"
    again = RabtrieverModel.from_pretrained(tmp_path / "package/student")
    torch.testing.assert_close(again.encode_query("I spilled my drink"), student.encode_query("I spilled my drink"))
