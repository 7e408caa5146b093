"""Compares ways of training the teacher by their students: which document states are worth distilling.

Usage:
    python -m benchmarks.document_states household=runs/household/data/household      # an hour on two cores
    python -m benchmarks.document_states household=... esconv=ESCONV --backbone esconv=runs/esconv/backbone/model

Every task is trained with its recipe, at the given seeds; a row changes what its name says. Tasks and seeds can be
measured separately: finished runs under --runs and rows in the result file are kept, among them those with a
joint student, of an earlier release. Dev decides what a recipe uses; test is reported.
"""

from pathlib import Path
from typing import Any

from benchmarks.results import bar, grouped, mean_kept, with_earlier, write_result
from benchmarks.students import TeacherBench
from benchmarks.tasks import SPLITS, TaskRun, task_parser, task_runs, trained_teacher
from modeling_rabtriever.tasks.beir import load_beir

# A special token that closes the document; tokenizers from scratch have it in the vocabulary anyway.
SUMMARY: dict[str, Any] = {"document_template": "Document: {document}\n<|endoftext|>"}
ORDINARY = {"document_lm_weight": 0.0}  # overrides the recipe
TEACHERS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "document language modelling": {"document_lm_weight": 0.1},
    "summary token": SUMMARY,
}


def measure(run: TaskRun, names: list[str], runs: Path) -> list[dict[str, Any]]:
    """The named rows for one task and seed: R@1 of teacher and student on both splits."""
    rows, task = [], load_beir(run.data)
    for name in names:
        folder = runs / f"{run.task}-{name.replace(' ', '-')}-seed{run.seed}"
        teacher = trained_teacher(run, task, folder, **ORDINARY | TEACHERS[name])
        bench = TeacherBench(run, teacher, folder, SPLITS, run.recipe("evaluate").get("max_queries"))
        row = {"task": run.task, "seed": run.seed, "steps": run.teacher.get("max_steps"), "row": name}
        rows.append(row | bench.measure(bench.distil("student")))
    return rows


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    parser = task_parser(__doc__, "runs/benchmark/document-states")
    parser.add_argument("--rows", nargs="+", default=[*TEACHERS], choices=[*TEACHERS], help="which rows to measure")
    arguments = parser.parse_args()
    new = [row for run in task_runs(arguments) for row in measure(run, arguments.rows, arguments.runs)]
    rows = with_earlier("benchmarks.document_states", new, ("task", "seed", "row"))
    bars = []
    for (task, name), seeds in grouped(rows, "task", "row"):
        label = f"student R@1 / teacher R@1, {task} test, {name}, mean of {len(seeds)} seeds"
        bars.append(bar(label, mean_kept(seeds), ">=", 0.95, seeds[0]["test"]["n"]))
    print(write_result("benchmarks.document_states", {"teachers": TEACHERS}, rows, bars))


if __name__ == "__main__":
    main()
