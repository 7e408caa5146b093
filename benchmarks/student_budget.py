"""What a smaller index or a smaller teacher bill costs, and which candidates are worth asking about.

Usage:
    python -m training.tasks.household runs/data/household && python -m training.tasks.household runs/data/large --large
    python -m benchmarks.student_budget household=runs/data/household household-large=runs/data/large --queries 300

Our student at several index widths `k`, and at several numbers of teacher pairs per training query, drawn in three ways
at equal bill: from the student's own distribution, uniformly, or the teacher's best of a uniform pool that is on the
bill. Every run starts with the same 16 candidates; the rest comes in three rounds.
"""

from typing import Any

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches, recipe_flags

WIDTHS = (64, 128, 256, 512, 1024)
START, ROUNDS = 16, 3
BILLS = (28, 40, 64, 112)  # pairs per training query
POLICIES = {"on-policy": "rabtriever", "uniform": "rabtriever-uniform", "teacher-top": "rabtriever-teacher-top"}


def bill_flags(policy: str, pairs: int) -> list[str]:
    """Flags of a student that asks about this many pairs per query."""
    per_round = (pairs - START) // ROUNDS
    if policy == "teacher-top":  # trains on half of the pool it pays for
        drawn = ["--teacher_pool", str(per_round), "--refresh_candidates", str(per_round // 2)]
    else:
        drawn = ["--refresh_candidates", str(per_round)]
    return ["--initial_candidates", str(START), "--refresh_rounds", str(ROUNDS), *drawn]


def rows_of(bench: TeacherBench, axes: list[str]) -> list[dict[str, Any]]:
    """All rows of one task and seed along the axes named."""
    settings: dict[str, dict[tuple[str, int], list[str]]] = {
        "k": {("on-policy", k): ["--embedding_dim", str(k)] for k in WIDTHS},
        "bill": {(policy, pairs): bill_flags(policy, pairs) for pairs in BILLS for policy in POLICIES},
    }
    rows = []
    for axis in axes:
        for (policy, value), flags in settings[axis].items():
            student = bench.distil(f"{policy}-{axis}-{value}", *recipe_flags(bench.run.task, POLICIES[policy]), *flags)
            row = {"task": bench.run.task, "seed": bench.run.seed, "axis": axis, "policy": policy, "value": value}
            rows.append({**row, "documents": len(bench.task.corpus), **bench.measure(student)})
    return rows


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """On-policy against the other two at equal bill, as differences of mean R@1 on test."""
    bars = []
    bills = [row for row in rows if row["axis"] == "bill"]
    for (task, value), here in grouped(bills, "task", "value"):
        means = {
            policy: sum(row["test"]["Rabtriever"]["mean"] for row in seeds) / len(seeds)
            for (policy,), seeds in grouped(here, "policy")
        }
        for other in ("uniform", "teacher-top"):
            label = f"R@1 of on-policy minus {other}, {task}, {value} pairs per query, mean over seeds"
            bars.append(bar(label, means["on-policy"] - means[other], ">=", 0.0, here[0]["test"]["n"]))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/budget")
    parser.add_argument("--axes", nargs="+", default=["k", "bill"], choices=["k", "bill"], help="what to vary")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        new = rows_of(bench, arguments.axes)
        rows = with_earlier("benchmarks.student_budget", new, ("task", "seed", "axis", "policy", "value"))
        settings = {"start": START, "rounds": ROUNDS, "queries": arguments.queries}
        print(write_result("benchmarks.student_budget", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
