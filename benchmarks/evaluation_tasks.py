"""Tasks end to end with their recipes: teacher, student and trivial baselines on the full test split, over seeds.

Usage:
    python -m benchmarks.evaluation_tasks esconv=ESCONV               # 45 minutes a seed on two cores, 30 in bf16

Needs a folder in BEIR layout, which is not part of this project. Seeds can be measured separately: finished runs under
--runs and rows in the result file are kept. `evaluation_sets` measures SayCan, with more systems.
--settings may name a stage: pretrain.bf16=true.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.results import bar, with_earlier, write_result
from benchmarks.tasks import RECIPES, TaskRun, task_parser, task_runs
from modeling_rabtriever.evaluation.labels import STUDENT, TEACHER
from modeling_rabtriever.evaluation.report import Report
from modeling_rabtriever.stages import pipeline

# R@1 of TF-IDF + logistic regression on the test split, measured before this project; ours is in the rows.
KNOWN_LOGISTIC_REGRESSION = {"esconv": 0.289}


def measure(run: TaskRun, runs: Path) -> dict[str, Any]:
    """One run of the pipeline; reuses a finished run."""
    folder = runs / f"{run.task}-seed{run.seed}"
    settings = {"data": run.data, "seed": run.seed, "output_dir": folder}
    settings |= {name if "." in name else f"train_reranker.{name}": value for name, value in run.teacher.items()}
    flags = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
    pipeline.main(["--config", RECIPES[run.task], *flags])
    stages = {stage: json.loads((folder / stage / "stage.json").read_text()) for stage in ("teacher", "student")}
    report = json.loads((folder / "evaluation" / "test.json").read_text())
    return {
        "task": run.task,
        "seed": run.seed,
        "teacher_training_pairs": stages["teacher"]["pairs"],
        "teacher_parameters": stages["teacher"]["parameters"],
        "student_teacher_pairs": stages["student"]["teacher_pairs"],
        "embedding_dim": stages["student"]["embedding_dim"],
        "test": report,
    }


def bars_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars of a row: retention, and R@1 against the baseline measured before."""
    report, task = Report.from_json(row["test"]), f"{row['task']}, seed {row['seed']}"
    kept = report.retention["success@1"]
    bars = [bar(f"student R@1 / teacher R@1, {task}", kept.mean, ">=", 0.95, report.n, (kept.low, kept.high))]
    if row["task"] in KNOWN_LOGISTIC_REGRESSION:
        limit = KNOWN_LOGISTIC_REGRESSION[row["task"]]
        for system in (TEACHER, STUDENT):
            found = report.systems[system].metrics["success@1"]
            name = f"{system} R@1 against TF-IDF + logistic regression as known before, {task}"
            bars.append(bar(name, found.mean, ">=", limit, report.n, (found.low, found.high)))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    arguments = task_parser(__doc__, "runs/benchmark").parse_args()
    new = [measure(run, arguments.runs) for run in task_runs(arguments)]
    new = [{**row, "settings": arguments.settings} for row in new]
    rows = with_earlier("benchmarks.evaluation_tasks", new, ("task", "seed"))
    bars = [found for row in rows for found in bars_of(row)]
    print(write_result("benchmarks.evaluation_tasks", {}, rows, bars))


if __name__ == "__main__":
    main()
