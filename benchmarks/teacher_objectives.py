"""Compares the teacher's objectives, SFT and listwise, with the same backbone, data, steps and batch, over seeds.

Usage:
    python -m benchmarks.teacher_objectives household=runs/household/data/household      # half an hour on two cores
    python -m benchmarks.teacher_objectives esconv=ESCONV --backbone esconv=runs/x/backbone/model --steps esconv=384

Everything that a row does not change comes from the task's recipe. Tasks and seeds can be measured separately: finished
runs under --runs and rows in the result file are kept, among them "sft, then DPO" of an earlier release. Dev decides
which objective a recipe uses; test is reported.
"""

from pathlib import Path
from typing import Any

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.tasks import SPLITS, TaskRun, task_parser, task_runs, trained_teacher
from modeling_rabtriever.evaluation import evaluate
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir

# Household: the R@1 of a working teacher. ESConv: TF-IDF + logistic regression, measured before.
BARS = {"household": 0.95, "esconv": 0.289}
QUERIES = {"household": 300}  # of each split, drawn with a fixed seed; of the others all


def measure(run: TaskRun, runs: Path, task: RetrievalTask) -> list[dict[str, Any]]:
    """Trains and evaluates the two teachers of one task and seed."""
    shared = {"task": run.task, "seed": run.seed, "steps": run.teacher.get("max_steps")}
    rows = []
    for objective in ("sft", "listwise"):
        teacher = trained_teacher(run, task, runs / f"{run.task}-{objective}-seed{run.seed}", objective=objective)
        rows.append({**shared, "objective": objective, **measured(teacher, task, run)})
    return rows


def measured(teacher: Path, task: RetrievalTask, run: TaskRun) -> dict[str, Any]:
    """R@1 and MRR@10 with intervals, and calibration, on dev and test."""
    found = {}
    for split in SPLITS:
        report = evaluate([teacher], task, split, max_queries=QUERIES.get(run.task))
        metrics = report.systems[TEACHER].metrics
        kept = {metric: metrics[metric].to_json() for metric in ("success@1", "mrr@10")}
        found[split] = {"n": report.n, **kept, "ece": report.calibration["ece"]}
    return found


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    arguments = task_parser(__doc__, "runs/benchmark/objectives").parse_args()
    new = [row for run in task_runs(arguments) for row in measure(run, arguments.runs, load_beir(run.data))]
    rows = with_earlier("benchmarks.teacher_objectives", new, ("task", "seed", "objective"))
    bars = []
    for (task, objective), seeds in grouped(rows, "task", "objective"):
        found = [row["test"] for row in seeds]
        name = f"teacher R@1, {task} test, {objective}, mean of {len(found)} seeds"
        mean = sum(split["success@1"]["mean"] for split in found) / len(found)
        bars.append(bar(name, mean, ">=", BARS[task], found[0]["n"]))
    print(write_result("benchmarks.teacher_objectives", {"queries": QUERIES}, rows, bars))


if __name__ == "__main__":
    main()
