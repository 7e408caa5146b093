"""Where JAX or TensorFlow is installed, nothing of ours imports it: either takes a GPU's memory for itself."""

import builtins
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bm25s
import pytest

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.bm25 import BM25, _without_jax
from tests.conftest import DOCUMENTS, QUERIES

ROOT = Path(__file__).parents[1]
# Each says who imported it. Libraries also look for the records of an installation.
FAKES = {"jax": ("lax", "numpy"), "jaxlib": (), "flax": (), "tensorflow": ("io",), "keras": (), "tf_keras": ()}
FAKE = """\
import os, traceback

with open(os.environ["IMPORTED"], "a") as file:
    print(__name__, *traceback.format_stack(), sep="\\n", file=file)

def top_k(values, k):
    pass
"""
EVERYTHING = """
import importlib, pkgutil, sys

NOT_HERE = {"usearch"}  # of the extra "benchmarks"
for top in ("modeling_rabtriever", "training", "model_cards", "benchmarks"):
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, top + "."):
        if module.name != "modeling_rabtriever.stages.answer":  # a process of its own, without the package
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in NOT_HERE:
                    raise

from transformers import AutoModel
from modeling_rabtriever.bm25 import BM25
from modeling_rabtriever.demo import Ranker
from modeling_rabtriever.stages import evaluate

assert BM25(["a sponge", "a lamp"])(["my sponge"])[0, 0] > 0
ranker = Ranker(AutoModel.from_pretrained("student"))
assert ranker.rank_bm25("my sponge", ranker.index(["a sponge", "a lamp"])).hits
flags = ["--task", sys.argv[1], "--model", "student", "--output_dir", "report", "--sentence_encoder", "no/body"]
assert (evaluate.main(flags) / "test.json").is_file()
"""
USER = """
import sys, jax, jax.lax
jax.lax.top_k = lambda values, k: sys.exit("JAX has computed something")
from modeling_rabtriever.bm25 import BM25
assert BM25(["a sponge", "a lamp"])(["my sponge"])[0, 0] > 0
assert sys.modules["jax"] is jax
import jax.numpy
"""


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    folder = tmp_path / "fakes"
    for name, parts in FAKES.items():
        for place in (name, *(f"{name}/{part}" for part in parts)):
            (folder / place).mkdir(parents=True)
            (folder / place / "__init__.py").write_text(FAKE)
        record = folder / f"{name}-9.9.9.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9\n")
        (record / "RECORD").write_text(f"{name}/__init__.py,,\n")
    return folder


def run(script: str, fakes: Path, *arguments: str) -> str:
    """Runs a script where the fakes are installed, and returns who imported one of them."""
    imported = fakes.parent / "imported"
    imported.touch()
    env = {**os.environ, "PYTHONPATH": f"{fakes}{os.pathsep}{ROOT}", "IMPORTED": str(imported)}
    finished = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=fakes.parent, env=env, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return imported.read_text()


@pytest.mark.slow
def test_nothing_of_ours_imports_them(student: RabtrieverModel, beir_folder: Path, fakes: Path, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    assert run(EVERYTHING, fakes, str(beir_folder)) == ""


def test_a_process_that_uses_jax_keeps_it(fakes: Path) -> None:
    imported = run(USER, fakes)
    assert imported.startswith("jax\n") and "\njax.numpy\n" in imported


def test_jax_is_hidden_from_one_thread_for_a_moment(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    monkeypatch.syspath_prepend(fakes)
    before = builtins.__import__
    try:
        with ThreadPoolExecutor(1) as another, _without_jax():
            with pytest.raises(ModuleNotFoundError, match="hidden"):
                __import__("jax.lax")
            another.submit(lambda: __import__("jax.lax")).result(timeout=30)
            with pytest.raises(ModuleNotFoundError, match="hidden"):  # also where it is there already
                __import__("jax.lax")
        assert builtins.__import__ is before and __import__("jax.lax").__name__ == "jax"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "jax"]:
            del sys.modules[name]


def test_bm25_scores_as_its_library_does() -> None:
    index = bm25s.BM25()
    index.index(bm25s.tokenize(DOCUMENTS, show_progress=False), show_progress=False)
    queries = [*QUERIES, "the long sponge in the attic, the sponge"]
    for scores, words in zip(
        BM25(DOCUMENTS)(queries), bm25s.tokenize(queries, return_ids=False, show_progress=False), strict=True
    ):
        assert scores.tolist() == (index.get_scores(words).tolist() if words else [0.0] * 4)
    assert BM25(["the", "a"])(["the", "zebra"]).tolist() == [[0.0, 0.0]] * 2
    assert BM25(DOCUMENTS)([]).shape == (0, 4)


def test_one_module_imports_bm25s() -> None:
    rooms = ("modeling_rabtriever", "training", "model_cards", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py") if "import bm25s" in path.read_text()]
    assert [path.name for path in files] == ["bm25.py"]
