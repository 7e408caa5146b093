"""What a smaller index or a smaller teacher bill costs, and which candidates are worth asking about.

Usage:
    python -m training.tasks.household runs/data/household && python -m training.tasks.household runs/data/large --large
    python -m benchmarks.student_budget household=runs/data/household household-large=runs/data/large --queries 300

Our student at several index widths `k`, and at several numbers of teacher pairs per training query, drawn in two ways
at equal bill: from the student's own distribution, or uniformly. Every run starts with the same 16 candidates; the rest
comes in three rounds.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches, recipe_flags
from benchmarks.tasks import SYSTEM

WIDTHS = (64, 128, 256, 512, 1024)
START, ROUNDS = 16, 3
BILLS = (28, 40, 64, 112)  # pairs per training query
POLICIES = {"on-policy": "rabtriever", "uniform": "rabtriever-uniform"}


def bill_flags(pairs: int) -> list[str]:
    """Flags of a student that asks about this many pairs per query."""
    drawn = {"initial_candidates": START, "refresh_rounds": ROUNDS, "refresh_candidates": (pairs - START) // ROUNDS}
    return [item for name, value in drawn.items() for item in (f"--{name}", str(value))]


def rows_of(bench: TeacherBench, axes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of one task and seed along the axes named, one after another."""
    settings: dict[str, dict[tuple[str, int], list[str]]] = {
        "k": {("on-policy", k): ["--embedding_dim", str(k)] for k in WIDTHS},
        "bill": {(policy, pairs): bill_flags(pairs) for pairs in BILLS for policy in POLICIES},
    }
    for axis in axes:
        for (policy, value), flags in settings[axis].items():
            student = bench.distil(f"{policy}-{axis}-{value}", *recipe_flags(bench.run.task, POLICIES[policy]), *flags)
            row = {"task": bench.run.task, "seed": bench.run.seed, "axis": axis, "policy": policy, "value": value}
            yield {**row, "documents": len(bench.task.corpus), **bench.measure(student)}


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """On-policy against uniform at equal bill, as a difference of R@1 on test, mean over the seeds that have both."""
    bars = []
    bills = [row for row in rows if row["axis"] == "bill"]
    for (task, value), here in grouped(bills, "task", "value"):
        found = [{row["policy"]: row["test"][SYSTEM]["mean"] for row in own} for _, own in grouped(here, "seed")]
        whole = [own for own in found if own.keys() == POLICIES.keys()]
        if whole:
            ahead = sum(own["on-policy"] - own["uniform"] for own in whole) / len(whole)
            label = f"R@1 of on-policy minus uniform, {task}, {value} pairs per query, mean of {len(whole)} seeds"
            bars.append(bar(label, ahead, ">=", 0.0, here[0]["test"]["n"]))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/budget")
    parser.add_argument("--axes", nargs="+", default=["k", "bill"], choices=["k", "bill"], help="what to vary")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        for row in rows_of(bench, arguments.axes):
            rows = with_earlier("benchmarks.student_budget", [row], ("task", "seed", "axis", "policy", "value"))
            settings = {"start": START, "rounds": ROUNDS}
            print(write_result("benchmarks.student_budget", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
