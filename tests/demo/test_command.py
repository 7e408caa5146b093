"""`rabtriever demo` and the folder it writes for a Space."""

import errno
import socket
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
    assert (
        'AutoModel.from_pretrained("org/student", revision="v1", trust_remote_code=False)' in app
        and "teacher=None" in app
    )
    _, metadata, _ = (tmp_path / "app/README.md").read_text().split("---\n")
    assert yaml.safe_load(metadata)["models"] == ["org/student"]
    assert not (tmp_path / "app/student").exists()
    compile(app, "app.py", "exec")
    with pytest.raises(ValueError, match="already exists; accepted: a new folder"):
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
        (["--space", "app", "--port", "8000"], "accepted: leave them out"),
        (["--space", "app", "--teacher", "student"], "the teacher is a RabtrieverModel; accepted"),
        (["--space", "app", *["--example", "x"] * 9], "9 examples are given; accepted: at most 8"),
        (["--space", "app", "--example", " "], "the query is blank"),
        (["--space", "app", "--example", "x" * 2001], "the query has 2,001 characters; accepted: at most 2,000"),
        (["--space", "app", "--example", "my \udcff"], r"the query holds half a character ('\udcff', character 4)"),
        (["--space", "full"], "full already exists; accepted: a new folder"),
        (["--space", "corpus.jsonl"], "corpus.jsonl already exists; accepted: a new folder"),
        (["--space", "corpus.jsonl/app"], "corpus.jsonl/app cannot be written (Not a directory); accepted: a new"),
        (["--model", "teacher"], "is a teacher; accepted: a student"),
        (["--corpus", "many.jsonl"], "many.jsonl holds more than 5,000 documents; accepted by the page"),
        (["--corpus", "blank.jsonl"], "blank.jsonl line 1: the document 'a' has no text"),
        (["--corpus", "empty.jsonl"], "empty.jsonl holds no documents"),
        (["--example", " "], "the query is blank"),
        (["--port", "99999"], "the port is 99999; accepted: 1 to 65535"),
        (["--port", "-1"], "the port is -1; accepted: 1 to 65535"),
        (["--host", "a..b"], "the host is 'a..b', which is not found; accepted: an address or a name of this machine"),
        (["--host", "192.0.2.1"], "the page cannot listen on 192.0.2.1 ("),
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
    Path("many.jsonl").write_text("".join(f'{{"id": {row}, "text": "a"}}\n' for row in range(5001)))
    Path("blank.jsonl").write_text('{"id": "a", "text": " "}\n')
    Path("empty.jsonl").write_text("\n")
    Path("full").mkdir()
    Path("full", "mine").touch()
    before = sorted(Path().rglob("*"))
    assert cli.main(["demo", "--model", "student", "--corpus", "corpus.jsonl", *flags]) == cli.BAD_INPUT
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_folder_that_cannot_be_written(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(self: Path, *arguments: Any, **settings: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(ValueError, match=r"app cannot be written \(Permission denied\); accepted: a new folder"):
        write_space(tmp_path / "app", student, CORPUS)


def test_a_taken_port(student: RabtrieverModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "a sponge"}\n')
    flags = ["demo", "--model", str(tmp_path / "student"), "--corpus", str(tmp_path / "corpus.jsonl")]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main([*flags, "--port", str(port)]) == cli.BAD_INPUT
    assert f"port {port} is taken on 127.0.0.1; accepted: a free port" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "rabtriever demo " in said and "--space" in said
