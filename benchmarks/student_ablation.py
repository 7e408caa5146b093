"""What each part of the student is worth: the same teachers and equal numbers of scored pairs, one recipe at a time.

Usage:
    python -m benchmarks.student_ablation household=runs/household/data/household \\
        --teacher household=runs/benchmark/household-seed{seed}/teacher/model     # half an hour a seed

Every row combines the task's recipe with a recipe students/... of the package; recipes that change one part are added
to students/paper or students/rabtriever. `{seed}` in a teacher's folder stands for the seed. Tasks, rows and seeds can
be measured separately: finished runs under --runs and rows in the result file are kept. Settings were chosen on dev.
The trivial baselines are rows too.
"""

from typing import Any

from benchmarks.results import bar, grouped, mean_kept, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from benchmarks.tasks import RETENTION
from modeling_rabtriever.evaluation.systems import baselines
from modeling_rabtriever.recipes import recipe_names

BASELINES = ("label prior", "BM25", "TF-IDF + logistic regression")
UNIFORM = "rabtriever-uniform"  # differs only in which candidates are drawn


def measure(bench: TeacherBench, name: str) -> dict[str, Any]:
    """One row: R@1 and MRR@10 of teacher and student on all splits."""
    row: dict[str, Any] = {"task": bench.run.task, "seed": bench.run.seed, "student": name}
    if "unlabelled_queries" in bench.run.recipe("distill"):
        row["unlabelled"] = bench.unlabelled
    if name in BASELINES:
        system = next(system for system in baselines(bench.task, "train") if system.name == name)
        return row | bench.compare(lambda split: system.score(split.queries))
    return row | bench.measure(bench.distil(name, name))


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file, row by row."""
    parser = bench_parser(__doc__, "runs/benchmark/students")
    every = [*BASELINES, *(name.rpartition("/")[2] for name in recipe_names("students"))]
    parser.add_argument("--rows", nargs="+", default=every, choices=every, help="student recipes to measure")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        for name in arguments.rows:
            if name == UNIFORM and bench.run.recipe("distill")["candidates"] >= len(bench.task.corpus):
                print(f"{name} left out: the recipe of {bench.run.task} asks about the whole corpus from the start")
                continue
            rows = with_earlier("benchmarks.student_ablation", [measure(bench, name)], ("task", "seed", "student"))
            print(write_result("benchmarks.student_ablation", {"students": every}, rows, bars_of(rows)))


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The share of the teacher's R@1 that our student keeps, per task, mean over seeds."""
    bars = []
    for (task, name), seeds in grouped(rows, "task", "student"):
        fewer_queries = seeds[0].get("unlabelled")  # than the recipe has
        if name == "rabtriever" and task in RETENTION and not fewer_queries:
            label = f"student R@1 / teacher R@1, {task} test, mean of {len(seeds)} seeds"
            bars.append(bar(label, mean_kept(seeds), ">=", RETENTION[task], seeds[0]["test"]["n"]))
    return bars


if __name__ == "__main__":
    main()
