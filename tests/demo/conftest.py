"""A page that runs: a Space's folder with tiny models, started as the Hub starts it, and a browser before it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, Qwen2Tokenizer

import rabtriever_cli as cli
from modeling_rabtriever import (
    GenerativeRerankerConfig,
    GenerativeRerankerModel,
    RabtrieverModel,
    RabtrieverProcessor,
)
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES, fresh_student

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHELF = ["a cup", "a plate", "a bowl"]  # the corpus of the second collection
START_SECONDS = 180  # imports on a busy machine
# Python runs this first: every address the page's process listens at, looks up or connects to is written down.
WATCHER = """\
import os, sys

def watch(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event != "socket.getaddrinfo" else arguments[:2]
        with open(os.environ["ADDRESSES"], "a") as file:
            print(event, address[0] if isinstance(address, tuple) else address, file=file)

sys.addaudithook(watch)
"""


@dataclass
class RunningPage:
    url: str
    process: int
    folder: Path
    addresses: Path
    uploads: Path
    student: RabtrieverModel
    teacher: GenerativeRerankerModel


@pytest.fixture(scope="session")
def models(tokenizer: Qwen2Tokenizer) -> tuple[RabtrieverModel, GenerativeRerankerModel]:
    torch.manual_seed(0)
    processor = RabtrieverProcessor(tokenizer, instruction="Relevant:", max_document_length=32, max_query_length=16)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.2}
    config = GenerativeRerankerConfig(
        text_config=AutoConfig.for_model("qwen2", **sizes, **FAMILIES["qwen2"]),
        true_token_id=processor.true_token_id,
        false_token_id=processor.false_token_id,
    )
    teacher = GenerativeRerankerModel(config).eval()
    teacher.processor = processor
    return fresh_student(teacher, embedding_dim=24).served(), teacher


@pytest.fixture(scope="session")
def space(models: tuple[RabtrieverModel, GenerativeRerankerModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    student, teacher = models
    student.save_pretrained(folder / "student")
    teacher.save_pretrained(folder / "teacher")
    fresh_student(teacher, embedding_dim=12).served().save_pretrained(folder / "narrow")
    for name, texts in (("errands", DOCUMENTS), ("shelf", SHELF)):
        rows = [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collections = {
        "Errands": {"model": "student", "teacher": "teacher", "corpus": "errands.jsonl", "examples": [QUERIES[1]]},
        "Top shelf": {"model": "narrow", "corpus": "shelf.jsonl", "examples": ["a cup"]},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(collections, sort_keys=False))
    app = tmp_path_factory.mktemp("alone") / "app"
    assert cli.main(["demo", str(folder / "mine.yaml"), "--space", str(app)]) == 0
    shutil.rmtree(folder)  # the Space must stand alone
    return app


@pytest.fixture(scope="session")
def running(
    space: Path,
    models: tuple[RabtrieverModel, GenerativeRerankerModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningPage]:
    watched = tmp_path_factory.mktemp("watched")
    (watched / "sitecustomize.py").write_text(WATCHER)
    with page_process(["app.py"], space, watched) as (url, process):
        uploads = watched / "uploads"
        yield RunningPage(url, process.pid, space, watched / "addresses", uploads, *models)


@contextmanager
def page_process(program: list[str], folder: Path, watched: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A page's process and address.

    Args:
        program: what Python runs.
        folder: where.
        watched: for uploads, the log, and what a `sitecustomize.py` there writes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    env |= {"PYTHONPATH": f"{watched}{os.pathsep}{ROOT}", "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    env |= {"ADDRESSES": str(watched / "addresses"), "GRADIO_TEMP_DIR": str(watched / "uploads")}
    url = f"http://127.0.0.1:{port}/"
    with (watched / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *program], cwd=folder, env=env, stdout=log, stderr=log)
        try:
            _wait_for(url, process, watched / "log")
            yield url, process
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    pytest.fail(f"the page did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on this machine; accepted: one of {', '.join(BROWSERS)}")
    return found
