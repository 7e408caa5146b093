"""Saved folders as the Hub sees them: loaded in a fresh process that does not have the package."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling_rabtriever
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from tests.conftest import DOCUMENTS, QUERIES

PACKAGE = Path(modeling_rabtriever.__file__).parent
HUB_FILES = sorted(
    path for pattern in ("configuration_*", "modeling_*", "processing_*") for path in PACKAGE.glob(pattern)
)
OF_A_STUDENT = {
    "configuration_rabtriever.py", "modeling_checks.py", "modeling_pooling.py", "modeling_prompted.py",
    "modeling_rabtriever.py", "processing_rabtriever.py",
}  # fmt: skip
LINES_OF_A_STUDENT = 1050  # whoever loads one with trust_remote_code has to be able to read them

MODULES_THAT_REACH_OUT = {
    "asyncio", "builtins", "ctypes", "ftplib", "glob", "http", "importlib", "io", "marshal", "multiprocessing", "os",
    "pathlib", "pickle", "runpy", "shelve", "shutil", "socket", "ssl", "subprocess", "sys", "tempfile", "urllib",
}  # fmt: skip
TORCH_THAT_REACHES_OUT = {"torch.load", "torch.save", "torch.hub", "torch.package", "torch.ops", "torch.jit.load"}
LOADER = """
import json, sys
sys.modules["modeling_rabtriever"] = None  # the package cannot be imported
from transformers import AutoModel, AutoProcessor
folder, queries, documents = json.load(sys.stdin)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
if hasattr(model, "similarity"):
    scores = model.similarity(model.encode_query(queries), model.encode_document(documents)).tolist()
else:
    scores = [model.predict([(query, document) for document in documents]).tolist() for query in queries]
print(json.dumps({
    "scores": scores,
    "modules": [type(model).__module__, type(processor).__module__],
    "prompt": processor.document_ids(documents[0])[0],
}))
"""
REFUSED = """
import sys
sys.modules["modeling_rabtriever"] = None
from transformers import AutoModel
AutoModel.from_pretrained(sys.argv[1], trust_remote_code=False)
"""


def _run(code: str, home: Path, *arguments: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=json.dumps(stdin),
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_student_loads_and_scores_without_the_package(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    done = _run(LOADER, tmp_path, stdin=[str(tmp_path / "student"), QUERIES, DOCUMENTS])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(module.startswith("transformers_modules.") for module in found["modules"])
    expected = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    torch.testing.assert_close(torch.tensor(found["scores"]), expected, atol=1e-5, rtol=0)
    assert found["prompt"] == student.processor.document_ids(DOCUMENTS[0])[0]


def test_teacher_loads_and_scores_without_the_package(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    done = _run(LOADER, tmp_path, stdin=[str(tmp_path / "teacher"), QUERIES, DOCUMENTS])
    assert done.returncode == 0, done.stderr
    expected = torch.stack([reranker.predict([(query, document) for document in DOCUMENTS]) for query in QUERIES])
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)["scores"]), expected, atol=1e-5, rtol=0)


def test_loading_without_the_flag_is_refused_by_transformers(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    done = _run(REFUSED, tmp_path, str(tmp_path / "student"))
    assert done.returncode != 0
    assert "contains custom code which must be executed" in done.stderr
    assert "trust_remote_code=True" in done.stderr


def test_saved_folder_is_complete(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    assert set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == {"AutoConfig", "AutoModel"}


def test_a_students_code_is_its_own_and_can_be_read(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    code = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert code.keys() == OF_A_STUDENT
    assert not [name for name, text in code.items() if "class GenerativeReranker" in text]
    assert sum(len(text.splitlines()) for text in code.values()) <= LINES_OF_A_STUDENT


def test_a_teachers_code_holds_no_student(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path)
    code = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert "modeling_generative_reranker.py" in code and code.keys() <= {path.name for path in HUB_FILES}
    assert not [name for name, text in code.items() if "class RabtrieverModel" in text]


def test_reloaded_folder_can_be_saved_again(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "first")
    RabtrieverModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    names = [{path.name for path in (tmp_path / folder).iterdir()} for folder in ("first", "second")]
    assert names[0] == names[1]


@pytest.mark.parametrize("path", HUB_FILES, ids=lambda path: path.name)
def test_hub_files_import_only_torch_transformers_and_each_other(path: Path) -> None:
    own = {file.stem for file in HUB_FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in own, ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                root = name.partition(".")[0]
                assert root in {"torch", "transformers"} or root in sys.stdlib_module_names, ast.unparse(node)
                assert root not in MODULES_THAT_REACH_OUT, ast.unparse(node)
        elif isinstance(node, ast.Name):
            assert node.id not in {"open", "eval", "exec", "compile", "__import__", "__builtins__"}, ast.unparse(node)
        elif isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in TORCH_THAT_REACHES_OUT, ast.unparse(node)
