"""What README.md tells a user to paste runs as printed; what it and CONTRIBUTING.md name is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_rabtriever import cli
from tests.conftest import DOCUMENTS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def blocks(language: str, text: str) -> str:
    return "".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


def run_python(block: str, folder: Path) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=folder,
        env={
            **os.environ,
            "HF_HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


@pytest.fixture
def runs(reranker, student, tmp_path):
    reranker.save_pretrained(tmp_path / "runs/household/teacher/model")
    student.save_pretrained(tmp_path / "runs/household/student/model")
    return tmp_path


def test_python_blocks_run_as_printed(runs):
    """The models need no package of ours, search does."""
    before, _ = README.read_text().split("## Search")
    block = blocks("python", before)
    lines = run_python("import sys\nsys.modules['modeling_rabtriever'] = None\n" + block, runs)
    scores = [float(line.split()[0]) for line in lines[:5]]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[3:] == sorted(scores[3:], reverse=True)
    assert lines[5].startswith("tensor([[")


def test_search_runs_as_printed(runs, capsys, monkeypatch):
    before, after = README.read_text().split("## Search")
    section = after.split("\n## ")[0]
    corpus = runs / "runs/household/data/household"
    corpus.mkdir(parents=True)
    rows = [{"_id": f"d{row}", "text": text, "room": "kitchen"} for row, text in enumerate(DOCUMENTS)]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(runs)
    for line in blocks("bash", section).splitlines():
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/rabtriever"
        assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)["hits"]
    lines = run_python(blocks("python", before) + blocks("python", section), runs)[-3:]
    assert [line.split()[1] for line in lines] == [hit["id"] for hit in found[:3]]
    assert "{'room': 'kitchen'}" in lines[0]


@pytest.mark.slow
def test_exports_run_as_printed(runs, monkeypatch):
    before, after = README.read_text().split("## Other engines")
    section = after.split("\n## ")[0]
    monkeypatch.chdir(runs)
    commands = [line for line in blocks("bash", before + section).splitlines() if " export " in line]
    assert len(commands) == 3
    for line in commands:
        assert cli.main(shlex.split(line)[1:]) == 0
    documents = "documents = ['bring the sponge', 'call a doctor', 'bring the ladder']\n"
    scores, shape = run_python(documents + blocks("python", section), runs)[-2:]
    assert scores.startswith("tensor([[") and shape == "(1, 24)"  # the student's here


def test_a_run_from_python_runs_as_printed(beir_folder, tmp_path):
    _, after = README.read_text().split("## Your own data")
    block = blocks("python", after.split("\n## ")[0])
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 512}
    backbone = tmp_path / "backbone.json"
    backbone.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400, **sizes}))
    for printed, small in (
        ("path/to/folder", str(beir_folder)),
        ("Qwen/Qwen3-0.6B", str(backbone)),
        ('"listwise", max_steps=600', '"listwise", max_steps=2, use_cpu=True'),
        ('"runs/student", max_steps=600', '"runs/student", max_steps=2, candidates=6, use_cpu=True'),
    ):
        assert printed in block
        block = block.replace(printed, small)
    lines = run_python(block + "print(student.encode_query(['find me the ant']).shape, report.n)\n", tmp_path)
    assert lines[-1] == "torch.Size([1, 32]) 24"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_and_links_exist(page):
    text = (ROOT / page).read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (README.parent / link).exists(), link


def test_the_map_for_contributors_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = re.findall(r"`([\w./-]+(?:\.py|\.yaml|\.md|/))`", text)
    assert len(names) > 50
    assert [
        name for name in names if not any((root / name).exists() for root in (ROOT, ROOT / "modeling_rabtriever"))
    ] == []
    broken, place = re.search(r"sed -i 's/(.+?)/.+' (\S+)", text).groups()
    assert broken in (ROOT / place).read_text()
