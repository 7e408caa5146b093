"""Every stage on the built-in household task, offline, in minutes on two CPU cores.

Usage:
    python -m training.quickstart
    python -m training.quickstart --output_dir runs/mine --train_reranker.max_steps 1000

Generates the household task, trains a teacher from scratch, distils it, and saves both. Then a process that has only
the saved folders loads them, indexes the documents and answers three queries. A second call skips finished stages. The
flags are those of the stage pipeline.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..evaluation.labels import NOTE, STUDENT, TEACHER
from ..evaluation.plots import student_against_teacher, training_curves
from ..evaluation.report import Report, retention_line
from ..evaluation.samples import fixed_sample
from ..files import write_json
from ..tasks.beir import RetrievalTask, load_beir
from ..tasks.household import write_household
from . import pipeline, program

RECIPE = "household"
SHOWN = 3


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs everything and returns the path of the summary."""
    flags = list(sys.argv[1:] if argv is None else argv)
    if "-h" in flags or "--help" in flags:
        print((__doc__ or "").replace("python -m training.quickstart", program("quickstart")))
        raise SystemExit(0)
    start = time.perf_counter()
    parser = argparse.ArgumentParser(program("quickstart"), add_help=False, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/household"))
    known, others = parser.parse_known_args(flags)
    run = known.output_dir
    data = write_household(run / "data" / "household")
    pipeline.main(["--config", RECIPE, "--data", str(data), "--output_dir", str(run), *others])

    task = load_beir(data)
    reports = {path.stem: json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("test*.json"))}
    answers = _answers(run, task, reports["test"]["n"])
    _plots(run, task, reports["test"]["n"])
    summary = {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gb": round(_peak_memory_gb(), 2),
        "evaluation": reports,
        "answers": [
            {**answer, "student": answer["student"][:SHOWN], "teacher": answer["teacher"][:SHOWN]} for answer in answers
        ],
    }
    path = run / "quickstart.json"
    write_json(path, summary)
    _show(run, reports, answers, summary)
    return path


def _answers(run: Path, task: RetrievalTask, count: int) -> list[dict[str, Any]]:
    queries = fixed_sample(task.split("test"), count).queries
    shown = [queries[place * len(queries) // SHOWN] for place in range(SHOWN)]
    finished = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("answer.py")),
            str((run / "teacher" / "model").resolve()),
            str((run / "student" / "model").resolve()),
        ],
        input=json.dumps({"queries": shown, "documents": list(task.corpus)}),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=run,  # not the clone, so that the package is not found
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"loading the saved models in a fresh process failed:\n{finished.stderr}")
    answers: list[dict[str, Any]] = json.loads(finished.stdout)
    return answers


def _plots(run: Path, task: RetrievalTask, count: int) -> None:
    teacher = json.loads((run / "teacher" / "log.json").read_text())
    student = json.loads((run / "student" / "log.json").read_text())
    training_curves(teacher, student, run / "training_curves.png")
    scores = load_file(run / "evaluation" / "test-scores.safetensors")
    relevant = fixed_sample(task.split("test"), count).relevant
    student_against_teacher(scores[STUDENT], scores[TEACHER], relevant, run / "student_against_teacher.png")


def _peak_memory_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit / 1e9


def _show(run: Path, reports: dict[str, Any], answers: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    print(f"\n== three queries, answered by the saved models in a fresh process ({answers[0]['code'].split('.')[0]})")
    for answer in answers:
        place = {hit["row"]: number for number, hit in enumerate(answer["teacher"], start=1)}
        print(f"\n{answer['query']}\n  {'score':>8}  {'document':<36} teacher's rank")
        for hit in answer["student"][:SHOWN]:
            print(f"  {hit['score']:8.2f}  {hit['document']:<36} {place[hit['row']]}")
    print("\n== results")
    for report in map(Report.from_json, reports.values()):
        cautions = [f"Warning. {warning}" for warning in report.warnings]
        print("\n\n".join(["", report.table, *cautions, retention_line(report)]))
    print(f"\n{NOTE}\n\n{summary['seconds']:.0f} s, peak memory {summary['peak_memory_gb']:.1f} GB. Written to {run}:")
    for name in ("quickstart.json", "training_curves.png", "student_against_teacher.png", "student/model/README.md"):
        print(f"  {run / name}")
