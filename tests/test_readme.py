"""What README.md tells a user to paste runs as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run_as_printed(reranker, student, tmp_path):
    reranker.save_pretrained(tmp_path / "runs/household/teacher/model")
    student.save_pretrained(tmp_path / "runs/household/student/model")
    block = "".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import sys\nsys.modules['modeling_rabtriever'] = None\n" + block],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    scores = [float(line.split()[0]) for line in lines[:5]]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[3:] == sorted(scores[3:], reverse=True)
    assert lines[5].startswith("tensor([[")


def test_commands_and_links_exist():
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (README.parent / link).exists(), link
