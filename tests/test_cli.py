"""The command line, as a user would type it."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import modeling_rabtriever
import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, loading
from modeling_rabtriever.distillation.student_arguments import ServedTeacherArguments
from modeling_rabtriever.reranking.prompts import PromptArguments, SourceArguments
from modeling_rabtriever.retrieval import vector_types
from rabtriever_cli import arguments, commands
from tests.conftest import DOCUMENTS, QUERIES
from tests.served.completion_server import CompletionServer

COMMANDS = ("encode", "index", "search", "rank", "export", "demo", "info")


@pytest.fixture
def folder(student: RabtrieverModel, reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    student.save_pretrained(tmp_path / "student")
    reranker.save_pretrained(tmp_path / "teacher")
    rows = [{"id": f"d{row}", "text": text, "row": row} for row, text in enumerate(DOCUMENTS)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": f"q{row}", "text": text} for row, text in enumerate(QUERIES)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    """Words that are names of files in the folder become their paths."""
    names = ("student", "teacher", "corpus.jsonl", "queries.jsonl", "vectors", "store", "ids", "bad.jsonl", "nothing")
    previous = ["", *arguments]
    return cli.main(
        [
            str(folder / word)
            if (word in names and before.startswith("--")) or (word in names and before == "info")
            else word
            for before, word in zip(previous, arguments, strict=False)
        ]
    )


def test_from_corpus_to_answers(folder: Path, student: RabtrieverModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors") == 0
    assert run(folder, "index", "--vectors", "vectors", "--store", "store") == 0
    assert "4 documents in" in capsys.readouterr().err
    assert (
        run(folder, "search", "--model", "student", "--store", "store", "--queries", "queries.jsonl", "--top-k", "2")
        == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == ["q0", "q1", "q2"]
    for query, line in zip(QUERIES, lines, strict=True):
        assert line["query"] == query
        assert [hit["text"] for hit in line["hits"]] == [row["text"] for row in student.rank(query, DOCUMENTS, 2)]
        assert line["hits"][0].keys() == {"id", "score", "text", "metadata"}

    flags = ["search", "--model", "student", "--store", "store", "--query", QUERIES[0]]
    assert run(folder, *flags, "--where", "row = 2", "--precision", "bfloat16") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [hit["metadata"] for hit in json.loads(line)["hits"]] == [{"row": 2}]

    (folder / "ids").write_text("d1\nd2\n\nnone\n")
    assert run(folder, "index", "--store", "store", "--delete", "ids") == 0
    assert "2 documents deleted" in (said := capsys.readouterr().err) and "1 ids not found: 'none'\n" in said
    assert run(folder, "info", "store") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "store" and found["documents"] == 2 and found["embedding_dim"] == 24


def test_an_approximate_index_is_kept_up_to_date(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors") == 0
    assert run(folder, "index", "--vectors", "vectors", "--store", "store") == 0
    flags = ["search", "--model", "student", "--store", "store", "--query", QUERIES[0], "--approximate"]
    assert run(folder, *flags) == cli.BAD_INPUT
    assert "has no approximate index; accepted: one of this version, which build_index" in capsys.readouterr().err
    assert run(folder, "index", "--store", "store", "--approximate") == 0
    (folder / "ids").write_text("d1\n")
    assert run(folder, "index", "--store", "store", "--delete", "ids") == 0
    assert run(folder, *flags) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert {hit["id"] for hit in hits} == {"d0", "d2", "d3"}


def test_the_last_document_of_a_store_with_indexes_can_be_deleted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors")
    assert run(folder, "index", "--vectors", "vectors", "--store", "store", "--words", "--approximate") == 0
    (folder / "ids").write_text("".join(f"d{row}\n" for row in range(len(DOCUMENTS))))
    assert run(folder, "index", "--store", "store", "--delete", "ids") == 0
    assert "4 documents deleted" in (said := capsys.readouterr().err) and "0 documents in" in said
    assert run(folder, "search", "--model", "student", "--store", "store", "--query", "x", "--hybrid") == 0
    assert json.loads(capsys.readouterr().out)["hits"] == []


def test_the_teacher_on_the_command_line(
    folder: Path, reranker: GenerativeRerankerModel, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [row["text"] for row in reranker.rank(QUERIES[0], DOCUMENTS)]
    flags = ["rank", "--model", "teacher", "--query", QUERIES[0], "--documents", "corpus.jsonl"]
    assert run(folder, *flags, "--top-k", "3") == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == expected[:3]
    run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors", "--vectors", "int8")
    run(folder, "index", "--vectors", "vectors", "--store", "store")
    flags = ["search", "--model", "student", "--store", "store", "--query", QUERIES[0], "--rerank", "teacher"]
    assert run(folder, *flags) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["text"] for hit in hits] == expected
    for path, kind in (("teacher", "GenerativeRerankerModel"), ("student", "RabtrieverModel"), ("vectors", "vectors")):
        assert run(folder, "info", path) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == kind


def test_a_teacher_behind_a_server_reranks_and_ranks(
    folder: Path, reranker: GenerativeRerankerModel, server: CompletionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = reranker.rank(QUERIES[0], DOCUMENTS)
    own = ["--model-name-or-path", str(folder / "teacher")]
    flags = ["rank", "--query", QUERIES[0], "--documents", "corpus.jsonl"]
    assert run(folder, *flags, "--model", server.url, *own) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == [row["text"] for row in expected]
    assert [line["score"] for line in lines] == pytest.approx([row["score"] for row in expected], abs=1e-4)
    run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors")
    run(folder, "index", "--vectors", "vectors", "--store", "store")
    flags = ["search", "--model", "student", "--store", "store", "--query", QUERIES[0], "--rerank", server.url]
    reranker.processor.tokenizer.save_pretrained(folder / "plain")
    prompt = ["--model_name_or_path", str(folder / "plain"), "--instruction", "Relevant:"]  # spelled as for distill
    prompt += ["--max_document_length", "16", "--max-query-length", "16"]
    for source in (own, prompt):
        assert run(folder, *flags, *source) == 0
        assert [hit["text"] for hit in json.loads(capsys.readouterr().out)["hits"]] == [row["text"] for row in expected]
    refused = (
        (["--served-model", "other", *own], "served_model is 'other', "),
        ([], "model_name_or_path is None; accepted"),
        (["--requests-in-flight", "2", "--model-name-or-path", "nothing"], "cannot be read"),
    )
    for given, message in refused:
        assert run(folder, *flags, *given) == 2
        assert message in capsys.readouterr().err
    for unserved in ([*flags[:-1], "teacher"], flags[:-2]):  # nothing is ignored
        assert run(folder, *unserved, *own) == 2
        assert "model_name_or_path given; accepted: only with the address" in capsys.readouterr().err
    server.fail(429, times=99)
    assert run(folder, *flags, *own) == 2
    assert "gave no answer in 8 tries (status 429" in capsys.readouterr().err


def test_bad_lines_can_be_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.jsonl").write_text('{"id": "a", "text": "good"}\n{"id": \n{"id": "b"}\n')
    flags = ["encode", "--model", "student", "--corpus", "bad.jsonl", "--output", "vectors"]
    assert run(folder, *flags) == 2
    assert "bad.jsonl line 2: broken JSON" in capsys.readouterr().err
    assert run(folder, *flags, "--skip-bad") == 0
    assert "1 documents, 24 x float32" in (found := capsys.readouterr().err) and "2 bad lines skipped" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--model", "student", "--store", "nothing", "--query", "x"], "holds no store; accepted"),
        (["index", "--store", "store"], "nothing to do; accepted: --vectors"),
        (["index", "--store", "store", "--vectors", "nothing"], "holds no encoded corpus"),
        (["index", "--store", "store", "--delete", "nothing"], "nothing"),
        (["encode", "--model", "teacher", "--corpus", "corpus.jsonl", "--output", "vectors"], "is a teacher; accepted"),
        (
            ["encode", "--model", "student", "--corpus", "nothing", "--output", "vectors"],
            "is not a file; accepted: .jsonl",
        ),
        (["encode", "--model", "nothing", "--corpus", "corpus.jsonl", "--output", "vectors"], "nothing"),
        (["rank", "--model", "teacher", "--query", " ", "--documents", "corpus.jsonl"], "blank"),
        (["info", "nothing"], "nothing"),
    ],
)
def test_mistakes_end_with_a_message(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_a_store_of_another_model_is_refused(
    folder: Path, student: RabtrieverModel, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors")
    run(folder, "index", "--vectors", "vectors", "--store", "store")
    student.processor = student.processor.replace(instruction="Another one:")
    student.save_pretrained(folder / "student")
    assert run(folder, "search", "--model", "student", "--store", "store", "--query", "x") == 2
    assert "scores would mean nothing" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


AT_ONCE = """
import sys
import rabtriever_cli

statuses = []
for words in ("--help", "--version", "find", "search --help", "search --top-k 0", "index", "encode --dtype int4"):
    try:
        rabtriever_cli.main(words.split())
    except SystemExit as stop:
        statuses.append(stop.code)
print(statuses, sorted({"torch", "transformers", "numpy", "modeling_rabtriever"} & {*sys.modules}))
"""


def test_help_and_mistakes_in_options_come_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2, 0, 2, 2, 2] []"


def test_options_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == modeling_rabtriever.__version__


def test_a_clone_that_is_not_installed_has_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("rabtriever_cli.arguments.metadata.version", missing)
    for flag, shown in (("--help", "usage: rabtriever"), ("--version", "unknown: not installed")):
        with pytest.raises(SystemExit, match="0"):
            cli.main([flag])
        assert shown in capsys.readouterr().out
    assert (arguments.DTYPES, arguments.VECTOR_TYPES) == (loading.DTYPES, vector_types.VECTOR_TYPES)
    kinds = (ServedTeacherArguments, SourceArguments, PromptArguments)
    settings = {option.name for kind in kinds for option in fields(kind)} - {"teacher"}
    for command in ("search", "rank"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        (group,) = re.findall(r"\na teacher behind a server:\n(.*?)\n\S", capsys.readouterr().out, re.DOTALL)
        assert {name.replace("-", "_") for name in re.findall(r"--([a-z_-]+)", group)} == settings


def test_search_takes_one_query_or_many(capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in (
        ([], "one of the arguments --query --queries is required"),
        (["--query", "x", "--queries", "-"], "argument --queries: not allowed with argument --query"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["search", "--model", "m", "--store", "s", *given])
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_usage_errors_and_interruption(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["find"])
    assert stop.value.code == 2

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_model", interrupted)
    assert run(folder, "info", "student") == 130


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    flags = ["--model", str(folder / "teacher"), "--query", "x", "--documents", str(folder / "corpus.jsonl"), "--quiet"]
    command = f"{sys.executable} -m rabtriever_cli rank {' '.join(flags)} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr


def test_exports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_towers = (
        "export",
        "--model",
        "student",
        "--format",
        "sentence-transformers",
        "--output",
        str(folder / "towers"),
    )
    assert run(folder, *to_towers) == 0
    said = capsys.readouterr().err
    assert "query tower" in said and "vLLM: no command for this folder\n    pools 2 ways" in said
    assert f"SentenceTransformer({str(folder / 'towers' / 'document')!r}).encode(texts)" in said
    assert {path.name for path in (folder / "towers").iterdir()} == {"query", "document", "combined"}
    to_encoder = ("export", "--model", "teacher", "--format", "cross-encoder", "--output", str(folder / "encoder"))
    assert run(folder, *to_encoder) == 0 and (folder / "encoder" / "tokenizer.json").is_file()
    said = capsys.readouterr().err
    assert "queries of up to 16 get the teacher's scores. A tokenizer has one limit" in said
    assert f"vllm serve {folder / 'encoder'} --runner pooling --dtype float32" in said
    assert run(folder, *to_encoder) == 2
    assert "encoder already exists; accepted: a new folder, or an empty one" in capsys.readouterr().err
    assert run(folder, "export", "--model", "teacher", "--format", "onnx", "--output", str(folder / "graphs")) == 2
    assert "is a GenerativeRerankerModel; accepted for this format: RabtrieverModel" in capsys.readouterr().err
    assert not (folder / "graphs").exists()


def test_stages_are_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for command in ("train", "distill", "evaluate", "card", "release", *COMMANDS):
        assert f"    {command} " in shown, command
    assert cli.main(["distill", "--config", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("rabtriever: recipe nowhere is not a file or a known name; accepted: ") and "students/" in said
    )
    assert cli.main(["card", str(folder / "nothing")]) == 2
    assert "holds no report" in capsys.readouterr().err


def test_a_stage_shows_its_own_help_and_is_called_as_the_user_calls_it(folder: Path) -> None:
    command = [sys.executable, "-m", "rabtriever_cli"]
    done = subprocess.run([*command, "train", "--help"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--negatives_per_positive N" in done.stdout
    assert "rabtriever train --config household" in done.stdout and "python -m" not in done.stdout
    flags = ["--data", "nowhere", "--output_dir", "mine"]
    done = subprocess.run([*command, "train", *flags], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mine/backbone/model is missing; accepted: run rabtriever pretrain first" in done.stderr


IMPORTED = """
import sys
import rabtriever_cli

try:
    status = rabtriever_cli.main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
print(status, sorted({"trl", "peft", "sklearn", "matplotlib", "sentence_transformers"} & {*sys.modules}))
"""


@pytest.mark.slow  # the import contracts in pyproject.toml are the fast test
@pytest.mark.parametrize(
    ("command", "used"),
    [
        ("search --model student --store store --query x", []),
        ("index --store store --words", []),
        ("evaluate --help", ["matplotlib", "sklearn"]),
    ],
)
def test_a_command_imports_what_it_uses(folder: Path, command: str, used: list[str]) -> None:
    run(folder, "encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors")
    run(folder, "index", "--vectors", "vectors", "--store", "store")
    call = [sys.executable, "-c", IMPORTED, *command.split()]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"0 {used}"
