"""A plain `pip install`: the command line works with what it brings, and names the extra a command needs beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_rabtriever import RabtrieverModel
from tests.conftest import rest_slow

# What the extras bring; a plain installation has torch, transformers, safetensors, huggingface-hub and what they need.
EXTRAS = [
    "accelerate", "bm25s", "datasets", "evaluate", "faiss", "gradio", "jinja2", "lancedb", "matplotlib", "mteb", "onnx",
    "onnxruntime", "onnxscript", "peft", "pyarrow", "ray", "scipy", "sentence_transformers", "sklearn", "tenacity",
    "trl",
]  # fmt: skip
PLAIN = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from rabtriever_cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(student: RabtrieverModel, tmp_path: Path) -> Path:
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "corpus.jsonl").write_text(
        '{"id": "a", "text": "bring the sponge"}\n{"id": "b", "text": "call a doctor"}\n'
    )
    return tmp_path


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", PLAIN, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", rest_slow([["--help"], ["encode", "--help"], ["--version"]]))
def test_help_needs_no_extra(folder: Path, command: list[str]) -> None:
    done = _run(folder, *command)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_models_need_no_extra(folder: Path) -> None:
    done = _run(folder, "rank", "--model", "student", "--query", "I spilled my drink", "--documents", "corpus.jsonl")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    done = _run(folder, "info", "student")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors"], "retrieval"),
        (["export", "--model", "student", "--format", "sentence-transformers", "--output", "towers"], "export"),
        (["export", "--model", "student", "--format", "onnx", "--output", "graphs"], "onnx"),
        (["demo"], "demo"),
        (["train", "--config", "household"], "train"),
        (["card", "run"], "evaluation"),
        pytest.param(["index", "--vectors", "vectors", "--store", "store"], "retrieval", marks=pytest.mark.slow),
        pytest.param(["search", "--model", "a", "--store", "b", "--query", "c"], "retrieval", marks=pytest.mark.slow),
        pytest.param(["distill", "--help"], "train", marks=pytest.mark.slow),
        pytest.param(["evaluate", "--model", "student", "--task", "."], "train", marks=pytest.mark.slow),
        pytest.param(["pipeline", "--config", "household"], "train", marks=pytest.mark.slow),
    ],
)
def test_a_missing_extra_is_named(folder: Path, command: list[str], extra: str) -> None:
    done = _run(folder, *command)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"rabtriever: {command[0]} needs " in done.stderr
    assert f"accepted: pip install 'modeling-rabtriever[{extra}]'" in done.stderr
    assert {path.name for path in folder.iterdir()} == {"student", "corpus.jsonl"}
