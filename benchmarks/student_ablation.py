"""What the student's parts are worth: the same teachers, one student recipe at a time, at equal teacher bill.

Usage:
    python -m benchmarks.student_ablation household=runs/household/data/household \\
        --teacher household=runs/benchmark/household-seed{seed}/teacher/model     # a quarter of an hour a seed

Every row is a file of training/recipes/students beside the task's recipe, or one of them with an MLP on both states in
place of the predictor. `{seed}` in a teacher's folder stands for the seed. Students without rounds get all their
candidates at the start. Tasks, rows and seeds can be measured one after another: finished runs under --runs and rows in
the result file are kept. Dev is what settings were chosen on.
"""

from pathlib import Path
from typing import Any

import yaml

from benchmarks.concat_ablation import concat_row
from benchmarks.results import bar, grouped, mean_kept, with_earlier, write_result
from benchmarks.tasks import RECIPES, TaskRun, distil_and_evaluate, task_parser, task_runs

STUDENTS = Path("training/recipes/students")
# Rows without the product, and the recipe whose losses and candidates they have.
CONCAT = {"paper-without-product": "paper", "rabtriever-without-product": "rabtriever"}
QUERIES = {"household": 300}  # of each split, as the recipe evaluates
# Shares of the teacher's R@1 our best student is to keep.
RETENTION = {"household": 0.98, "esconv": 0.97, "saycan": 0.95}


def candidates(task: str, student: Path) -> list[str]:
    """Flags that give a student without rounds as many candidates as the task's recipe ends with."""
    settings = yaml.safe_load(Path(RECIPES[task]).read_text())["distill"]
    changes = yaml.safe_load(student.read_text())["distill"]
    if "refresh_rounds" not in changes:
        return []
    total = settings["initial_candidates"] + settings["refresh_rounds"] * settings.get("refresh_candidates", 0)
    return ["--initial_candidates", str(total)]


def measure(run: TaskRun, names: list[str], runs: Path, teacher: str) -> list[dict[str, Any]]:
    """The rows named, for one task and seed: R@1 and MRR@10 of teacher and student on both splits."""
    rows = []
    for name in names:
        recipe = STUDENTS / f"{CONCAT.get(name, name)}.yaml"
        folder = runs / f"{run.task}-{name}-seed{run.seed}"
        shared = [*run.shared, "--config", str(recipe)]
        flags = candidates(run.task, recipe)
        folder_of_teacher = Path(teacher.replace("{seed}", str(run.seed)))
        if name in CONCAT:
            concat_states = runs / f"states-{run.task}-{run.seed}"
            argv = [*shared, "--output_dir", str(folder), "--save_strategy", "no", *flags]
            found = concat_row(folder_of_teacher, concat_states, argv, QUERIES.get(run.task))
        else:
            states = ["--states", str(runs / "states")]
            found = distil_and_evaluate(shared, folder, folder_of_teacher, [*flags, *states])
        rows.append({"task": run.task, "seed": run.seed, "student": name, **found})
    return rows


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = task_parser(__doc__, "runs/benchmark/students")
    every = sorted([*(path.stem for path in STUDENTS.glob("*.yaml")), *CONCAT])
    parser.add_argument("--rows", nargs="+", default=every, choices=every, help="which student recipes")
    parser.add_argument("--teacher", nargs="+", required=True, help="name=folder of the task's teachers, with {seed}")
    arguments = parser.parse_args()
    teachers = dict(item.split("=", 1) for item in arguments.teacher)
    new = []
    for run in task_runs(arguments):
        new += measure(run, arguments.rows, arguments.runs, teachers[run.task])
    rows = with_earlier("benchmarks.student_ablation", new, ("task", "seed", "student"))
    bars = []
    for (task, name), seeds in grouped(rows, "task", "student"):
        if name == "rabtriever":
            label = f"student R@1 / teacher R@1, {task} test, mean of {len(seeds)} seeds"
            bars.append(bar(label, mean_kept(seeds), ">=", RETENTION[task], seeds[0]["test"]["n"]))
    print(write_result("benchmarks.student_ablation", {"students": every}, rows, bars))


if __name__ == "__main__":
    main()
