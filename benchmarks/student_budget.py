"""What a narrower index or fewer scored pairs cost, and which candidates are worth scoring.

Usage:
    python -m training.tasks.household runs/data/household && python -m training.tasks.household runs/data/large --large
    python -m benchmarks.student_budget household=runs/data/household household-large=runs/data/large --queries 300

Our student at several index widths `k`, and at several numbers of teacher pairs per training query, drawn in two ways
at equal cost: from the student's own distribution in three rounds, or uniformly, all at the start.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from benchmarks.tasks import SYSTEM

WIDTHS = (64, 128, 256, 512, 1024)
ROUNDS = 3
BILLS = (28, 40, 64, 112)  # pairs per training query
POLICIES = {"on-policy": ROUNDS, "uniform": 0}  # rounds of drawing


def rows_of(bench: TeacherBench, axes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of one task and seed along the named axes."""
    settings: dict[str, dict[tuple[str, int], dict[str, int]]] = {
        "k": {("on-policy", k): {"embedding_dim": k} for k in WIDTHS},
        "bill": {
            (policy, pairs): {"candidates": pairs, "rounds": rounds}
            for pairs in BILLS
            for policy, rounds in POLICIES.items()
        },
    }
    for axis in axes:
        for (policy, value), changes in settings[axis].items():
            student = bench.distil(f"{policy}-{axis}-{value}", "rabtriever", **changes)
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
    """Measures all tasks and seeds, and adds them to the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/budget")
    parser.add_argument("--axes", nargs="+", default=["k", "bill"], choices=["k", "bill"], help="what to vary")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        for row in rows_of(bench, arguments.axes):
            rows = with_earlier("benchmarks.student_budget", [row], ("task", "seed", "axis", "policy", "value"))
            print(write_result("benchmarks.student_budget", {"rounds": ROUNDS}, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
