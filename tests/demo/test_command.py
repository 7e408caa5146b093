"""`rabtriever demo` and the folder it writes for a Space."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import modeling_rabtriever.demo
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, __version__, cli
from modeling_rabtriever.demo import read_corpus, write_space
from modeling_rabtriever.retrieval import Document
from tests.conftest import DOCUMENTS, QUERIES

CORPUS = [Document(str(row), text) for row, text in enumerate(DOCUMENTS)]


def test_a_space_has_what_it_needs(space: Path) -> None:
    assert {path.name for path in space.iterdir()} == {
        "app.py",
        "requirements.txt",
        "README.md",
        "corpus.jsonl",
        "student",
        "teacher",
    }
    _, metadata, _ = (space / "README.md").read_text().split("---\n")
    settings = yaml.safe_load(metadata)
    assert settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and "models" not in settings
    assert len(settings["short_description"]) <= 60  # the Hub's limit
    assert (space / "requirements.txt").read_text() == f"modeling-rabtriever[demo]=={__version__}\n"
    assert [document.text for document in read_corpus(space / "corpus.jsonl")] == DOCUMENTS


def test_models_of_the_hub_are_named(student: RabtrieverModel, tmp_path: Path) -> None:
    write_space(tmp_path / "app", student, CORPUS, student_id="org/student", revision="v1")
    app = (tmp_path / "app/app.py").read_text()
    assert 'AutoModel.from_pretrained("org/student", revision="v1")' in app and "teacher=None" in app
    _, metadata, _ = (tmp_path / "app/README.md").read_text().split("---\n")
    assert yaml.safe_load(metadata)["models"] == ["org/student"]
    assert not (tmp_path / "app/student").exists()
    compile(app, "app.py", "exec")
    with pytest.raises(ValueError, match="is there already; accepted: a new folder"):
        write_space(tmp_path / "app", student, CORPUS)


def test_the_page_is_served_to_this_machine_alone(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "a sponge"}\n')
    served: list[Any] = []
    monkeypatch.setattr(modeling_rabtriever.demo, "serve", lambda *arguments: served.append(arguments))
    flags = ["demo", "--model", str(tmp_path / "student"), "--corpus", str(tmp_path / "corpus.jsonl")]
    assert cli.main(flags) == 0
    assert cli.main([*flags, "--host", "0.0.0.0", "--port", "8000", "--example", QUERIES[0]]) == 0
    assert [arguments[2:] for arguments in served] == [
        (None, [], "127.0.0.1", None),
        (None, [QUERIES[0]], "0.0.0.0", 8000),
    ]
    assert isinstance(served[0][0], RabtrieverModel) and served[0][1] == [Document("a", "a sponge")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space", "app", "--port", "8000"], "accepted: without --space"),
        (["--space", "app", "--teacher", "student"], "the teacher is a RabtrieverModel; accepted"),
        (["--space", "app", *["--example", "x"] * 9], "9 examples are given; accepted: at most 8"),
        (["--space", "app", "--example", " "], "the query is blank"),
        (["--model", "teacher"], "is a teacher; accepted: a student"),
    ],
)
def test_mistakes_end_with_a_message(
    student: RabtrieverModel,
    reranker: GenerativeRerankerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    student.save_pretrained("student")
    reranker.save_pretrained("teacher")
    Path("corpus.jsonl").write_text('{"id": "a", "text": "a sponge"}\n')
    assert cli.main(["demo", "--model", "student", "--corpus", "corpus.jsonl", *flags]) == cli.BAD_INPUT
    assert message in capsys.readouterr().err
    assert not Path("app").exists()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "rabtriever demo " in said and "--space" in said
