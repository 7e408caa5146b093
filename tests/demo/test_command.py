"""`rabtriever demo` and the folder it writes for a Space."""

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

import modeling_rabtriever.demo
import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, __version__
from modeling_rabtriever.demo import Collection, read_collections, write_space
from modeling_rabtriever.demo.collections import read_entries
from modeling_rabtriever.demo.page import build_page
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.retrieval import Document
from tests.conftest import DOCUMENTS, QUERIES
from tests.demo.conftest import SHELF

MINE = "mine: {model: student, corpus: corpus.jsonl}\n"


@pytest.fixture
def place(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with models, corpora and a file of collections, to work in."""
    monkeypatch.chdir(tmp_path)
    student.save_pretrained("student")
    reranker.save_pretrained("teacher")
    Path("corpus.jsonl").write_text('{"id": "a", "text": "a sponge"}\n')
    Path("mine.yaml").write_text(MINE)
    return tmp_path


def test_a_space_has_what_it_needs(space: Path) -> None:
    assert {path.relative_to(space).as_posix() for path in space.glob("*")} == {
        *("app.py", "requirements.txt", "README.md", "collections.yaml"),
        *("1-errands", "2-top-shelf"),
    }
    _, metadata, _ = (space / "README.md").read_text().split("---\n")
    settings = yaml.safe_load(metadata)
    assert settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and "models" not in settings
    assert len(settings["short_description"]) <= 60  # the Hub's limit
    assert (space / "requirements.txt").read_text() == f"modeling-rabtriever[demo]=={__version__}\n"
    errands, shelf = read_collections(space / "collections.yaml")
    assert [document.text for document in errands.documents] == DOCUMENTS
    assert isinstance(errands.teacher, GenerativeRerankerModel) and errands.examples == [QUERIES[1]]
    assert [document.text for document in shelf.documents] == SHELF
    assert shelf.name == "Top shelf" and shelf.teacher is None


def test_models_of_the_hub_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text(
        f"{MINE}theirs: {{model: org/student, revision: v1, corpus: corpus.jsonl}}\nhousehold:\n"
    )
    asked: list[tuple[Any, ...]] = []

    def load(path: str, *settings: Any) -> Any:
        asked.append((path, *settings))
        return load_model("student" if path == "org/student" else path)

    monkeypatch.setattr("modeling_rabtriever.demo.collections.load_model", load)
    assert cli.main(["demo", "mine.yaml", "--space", "app", "--dtype", "bfloat16"]) == 0
    assert ("org/student", "bfloat16", "cpu", "v1") in asked
    listed = yaml.safe_load(Path("app/collections.yaml").read_text())
    assert list(listed) == ["mine", "theirs", "household"] and listed["household"] is None  # the package has its models
    assert listed["theirs"] == {
        "model": "org/student",
        "revision": "v1",
        "corpus": "2-theirs/corpus.jsonl",
        "examples": [],
    }
    assert not Path("app/2-theirs/model").exists() and Path("app/1-mine/model/config.json").is_file()
    _, metadata, _ = Path("app/README.md").read_text().split("---\n")
    assert yaml.safe_load(metadata)["models"] == ["org/student"]
    compile(Path("app/app.py").read_text(), "app.py", "exec")
    with pytest.raises(ValueError, match="already exists; accepted: a new folder"):
        write_space("app", "mine.yaml")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `serve` is called with."""
    calls: list[Any] = []
    monkeypatch.setattr(modeling_rabtriever.demo, "serve", lambda *arguments: calls.append(arguments))
    return calls


def test_the_page_is_served_to_this_machine_alone(place: Path, served: list[Any]) -> None:
    assert cli.main(["demo", "mine.yaml"]) == 0
    assert cli.main(["demo", "mine.yaml", "--host", "0.0.0.0", "--port", "8000"]) == 0
    assert [arguments[1:] for arguments in served] == [("127.0.0.1", None), ("0.0.0.0", 8000)]
    (collection,) = served[0][0]
    assert collection.name == "mine" and collection.documents == [Document("a", "a sponge")]


def test_without_a_file_it_is_the_household_task(served: list[Any]) -> None:
    assert cli.main(["demo"]) == 0
    (household,) = served[0][0]
    assert household.name == "household" and len(household.documents) == 408
    for example in household.examples:
        texts = [document.text for document in household.documents]
        best = [model.rank(example, texts, top_k=1)[0]["text"] for model in (household.student, household.teacher)]
        assert best[0] == best[1]


def test_paths_start_at_the_files_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    (entry,) = read_entries("../mine.yaml")
    assert Path(entry.model).samefile(place / "student") and Path(entry.corpus).samefile(place / "corpus.jsonl")
    Path("hub.yaml").write_text("theirs: {model: org/student, corpus: 'hub:org/data'}")
    (entry,) = read_entries("hub.yaml")
    assert (entry.model, entry.corpus) == ("org/student", "hub:org/data")
    monkeypatch.chdir(place)
    Path("elsewhere/here.yaml").write_text(MINE)
    with pytest.raises(
        ValueError, match="model is 'student', and there is no folder elsewhere/student; accepted: a folder"
    ):
        read_entries("elsewhere/here.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "mine.yaml lists no collections; accepted: a YAML mapping of name -> settings"),
        ("- mine", "mine.yaml is not a mapping; accepted: a YAML mapping of name -> settings"),
        ("mine: {", "mine.yaml is not YAML"),
        (MINE * 2, "mine.yaml has mine twice, in lines 1 and 2; accepted: every key once"),
        (
            "mine:",
            "mine.yaml: mine has no settings; accepted: model, corpus, and perhaps teacher, examples, revision, or",
        ),
        ("mine: student", "mine.yaml: mine: its settings are 'student'; accepted: model, corpus"),
        ("mine: {model: student}", "mine.yaml: mine: its settings are model; accepted: model, corpus, and perhaps"),
        ("mine: {model: student, corpus: corpus.jsonl, size: 3}", "its settings are model, corpus, size; accepted"),
        ("mine: {model: 3, corpus: corpus.jsonl}", "mine.yaml: mine: model is 3; accepted: a text"),
        ("1: {model: student, corpus: corpus.jsonl}", "the name is 1; accepted: a text of at most 60 characters"),
        (f"{'x' * 61}: {{model: student, corpus: corpus.jsonl}}", "accepted: a text of at most 60 characters"),
        (MINE.replace("}", ", examples: lamp}"), "mine.yaml: mine: examples is 'lamp'; accepted: a list of texts"),
        (MINE.replace("}", f", examples: {['x'] * 9}}}"), "9 examples are given; accepted: at most 8"),
        (MINE.replace("}", ", examples: [' ']}"), "mine.yaml: mine: the query is blank"),
        (MINE.replace("}", f", examples: [{'x' * 2001}]}}"), "the query has 2,001 characters; accepted: at most 2,000"),
        (MINE.replace("student", "nowhere"), "mine: nowhere cannot be loaded"),
        (
            MINE.replace("model", "model: elsewhere, model"),
            "mine.yaml has model twice, in lines 1 and 1; accepted: every key",
        ),
        (MINE.replace("corpus.jsonl", "'-'"), "mine.yaml: mine: corpus is '-'; accepted: .jsonl, .parquet, hub:"),
        (
            MINE.replace("student", "runs/no/model"),
            "mine.yaml: mine: model is 'runs/no/model', and there is no folder runs/no/model; accepted: a folder, from",
        ),
        (
            MINE.replace("}", ", teacher: http://localhost:8000/v1}"),
            "mine: teacher is 'http://localhost:8000/v1', the address of a server; accepted on the page: a folder or a",
        ),
        (MINE.replace("student", "x" * 5000), "cannot be loaded"),
        (MINE.replace("corpus.jsonl", "x" * 5000), "x is not a file"),
        (
            MINE.replace("student", "teacher"),
            "mine: the student is a GenerativeRerankerModel; accepted: a RabtrieverMod",
        ),
        (MINE.replace("}", ", teacher: student}"), "mine: the teacher is a RabtrieverModel; accepted"),
        (
            MINE.replace("corpus.jsonl", "many.jsonl"),
            "many.jsonl holds more than 5,000 documents; accepted by the page",
        ),
        (MINE.replace("corpus.jsonl", "blank.jsonl"), "blank.jsonl line 1: the document 'a' has no text"),
        (MINE.replace("corpus.jsonl", "empty.jsonl"), "empty.jsonl holds no documents"),
        (MINE.replace("corpus.jsonl", "no.jsonl"), "mine: no.jsonl is not a file"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--space", "app")], ids=["page", "space"])
def test_a_file_of_collections_with_mistakes(
    place: Path, text: str, message: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(text)
    Path("many.jsonl").write_text("".join(f'{{"id": {row}, "text": "a"}}\n' for row in range(5001)))
    Path("blank.jsonl").write_text('{"id": "a", "text": " "}\n')
    Path("empty.jsonl").write_text("\n")
    assert cli.main(["demo", "mine.yaml", *flags]) == cli.BAD_INPUT
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rabtriever: ")]
    assert message in said and "; accepted" in said
    assert not Path("app").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space", "app", "--port", "8000"], "--space, which serves nothing; accepted: none of them"),
        (["--space", "app", "--device", "cuda"], "--space, which serves nothing; accepted: none of them"),
        (["--space", "full"], "full already exists; accepted: a new folder"),
        (["--space", "corpus.jsonl"], "corpus.jsonl already exists; accepted: a new folder"),
        (["--space", "corpus.jsonl/app"], "corpus.jsonl/app cannot be written (Not a directory); accepted: a new"),
        (["--port", "99999"], "the port is 99999; accepted: 1 to 65535"),
        (["--port", "-1"], "the port is -1; accepted: 1 to 65535"),
        (["--host", "a..b"], "the host is 'a..b', which is not found; accepted: an address or a name of this machine"),
        (["--host", "192.0.2.1"], "the page cannot listen on 192.0.2.1 ("),
    ],
)
def test_mistakes_end_with_a_message(
    place: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full", "mine").touch()
    before = sorted(Path().rglob("*"))
    assert cli.main(["demo", "mine.yaml", *flags]) == cli.BAD_INPUT
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "no.yaml", tmp_path):
        assert cli.main(["demo", str(path)]) == cli.BAD_INPUT
        assert f"{path} cannot be read (" in capsys.readouterr().err


def test_collections_of_python(student: RabtrieverModel, reranker: GenerativeRerankerModel) -> None:
    documents = [Document("a", "a lamp")]
    with pytest.raises(ValueError, match=r"the collections are \[\]; accepted: at least one"):
        build_page([])
    lamps = Collection("lamps", student, documents)
    with pytest.raises(ValueError, match=r"the collections are \['lamps', 'lamps'\]; accepted: .* a name of its own"):
        build_page([lamps, lamps])
    with pytest.raises(ValueError, match="lamps has no documents; accepted: at least one"):
        Collection("lamps", student, [])
    with pytest.raises(ValueError, match="the name is ' '; accepted: a text"):
        Collection(" ", student, documents)
    with pytest.raises(ValueError, match="the query is blank"):
        Collection("lamps", student, documents, reranker, [" "])


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(self: Path, *arguments: Any, **settings: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(ValueError, match=r"app cannot be written \(Permission denied\); accepted: a new folder"):
        write_space(tmp_path / "app")


def test_a_taken_port(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["demo", "mine.yaml", "--port", str(port)]) == cli.BAD_INPUT
    assert f"port {port} is taken on 127.0.0.1; accepted: a free port" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "rabtriever demo " in said and "--space" in said
