"""What an option of a student whose encoder trains is worth: each is changed alone.

Usage:
    python -m benchmarks.student_options household=runs/data/household

Students train the teacher's backbone on household. Only dev is evaluated, because options are chosen there. The
teacher scores the same number of pairs for all students, except where candidates are what changes.
"""

from typing import Any

import numpy as np

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from benchmarks.tasks import SYSTEM

BASE: dict[str, Any] = {
    "train_encoder": "full",
    "encoder_learning_rate": 1e-3,
    "learning_rate": 2e-3,
    "max_steps": 400,
    "candidates": 16,
    "rounds": 2,
    "mse_weight": 0.0,
    "kl_weight": 0.0,
    "embedding_dim": None,
    "eval_strategy": "no",
}
AS_IT_IS = "as it is"
OPTIONS: dict[str, dict[str, Any]] = {
    AS_IT_IS: {},
    "all candidates drawn at the start": {"rounds": 0},
    "8 candidates": {"candidates": 8},
    "temperature 1": {"temperature": 1.0},
    "temperature 4": {"temperature": 4.0},
    "index width 64": {"embedding_dim": 64},
    "half of the loss from labels": {"label_share": 0.5},
    "MSE and KL, weights 0.1": {"mse_weight": 0.1, "kl_weight": 0.1},
    "adapters": {"train_encoder": "lora"},
}
LEVEL = 0.02  # of R@1: options that change less are level with the default


def rows_of(bench: TeacherBench, names: list[str]) -> list[dict[str, Any]]:
    """One row per option of one task and seed."""
    rows = []
    for name in names:
        student = bench.distil(f"options-{name.replace(' ', '-').replace(',', '')}", **BASE | OPTIONS[name])
        row = {"task": bench.run.task, "seed": bench.run.seed, "option": name, "documents": len(bench.task.corpus)}
        rows.append({**row, **bench.measure(student)})
        print({"option": name, "R@1": rows[-1]["dev"][SYSTEM]["mean"]}, flush=True)
    return rows


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """No option that is not a default is worth more than `LEVEL` of R@1, mean over the seeds that have both."""
    bars = []
    for (task,), here in grouped(rows, "task"):
        found = {(row["option"], row["seed"]): row["dev"][SYSTEM]["mean"] for row in here}
        for name in dict.fromkeys(row["option"] for row in here if row["option"] != AS_IT_IS):
            seeds = [seed for option, seed in found if option == name and (AS_IT_IS, seed) in found]
            if seeds:
                worth = float(np.mean([found[name, seed] - found[AS_IT_IS, seed] for seed in seeds]))
                label = f"{task}, dev R@1 of '{name}' less that of '{AS_IT_IS}', {len(seeds)} seed(s)"
                bars.append(bar(label, worth, "<=", LEVEL, here[0]["dev"]["n"]))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/options", splits=("dev",))
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=list(OPTIONS), help="which to change")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        new = rows_of(bench, arguments.options)
        rows = with_earlier("benchmarks.student_options", new, ("task", "seed", "option"))
        print(write_result("benchmarks.student_options", {"base": BASE, "options": OPTIONS}, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
