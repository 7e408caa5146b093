"""Our student in whole corpora of thousands of documents, against BM25 and what people train on labels.

Usage:
    python -m benchmarks.student_corpora cose=COSE --teacher cose=runs/cose/seed{seed}/teacher/model \\
        --encoder runs/pretrained/minilm

The methods and the bill are those of `benchmarks.student_equal_bill`; every query of test is ranked against the whole
corpus. The teacher re-ranks what any method has among its first documents, for a fixed sample of test queries.
"""

from typing import Any

import numpy as np

from benchmarks.opponents import HARD
from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.student_equal_bill import OURS, SETTINGS, measure
from benchmarks.students import bench_parser, benches

METHODS = ("KL", "InfoNCE", HARD)
RIVALS = ("BM25", "InfoNCE", HARD, "KL")


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against each rival, and against the teacher on what all methods found."""
    bars = []
    for (task, start), here in grouped(rows, "task", "start"):
        ours = [row for row in here if row["method"] == OURS]
        label = f"{task}, {start}, {len(ours)} seed{'s' if len(ours) > 1 else ''}: nDCG@10"
        for rival in RIVALS:
            found = [row["ndcg@10"] for row in here if row["method"] == rival]
            if found:
                p = ", ".join(f"{row['p']:.4f}" for row in found)
                ahead = float(np.mean([row["ahead"] for row in found]))
                bars.append(bar(f"{label} less that of {rival} (paired p {p})", ahead, ">=", 0.0, ours[0]["n"]))
        kept = [row["ndcg@10"]["kept"] for row in ours]
        interval = [float(np.mean([one[side] for one in kept])) for side in ("low", "high")]
        mean = float(np.mean([one["mean"] for one in kept]))
        bars.append(bar(f"{label} / the teacher's", mean, ">=", 0.95, ours[0]["teacher_n"], interval))
    return bars


def main() -> None:
    """Measures all sets and seeds, and puts them into the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/corpora", splits=())
    parser.add_argument("--encoder", help="folder of a sentence encoder that all methods start from")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS, help="opponents to train")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        new = measure(bench, arguments.encoder, tuple(arguments.methods))
        rows = with_earlier("benchmarks.student_corpora", new, ("task", "seed", "start", "method"))
        settings = {name: vars(setting) for name, setting in SETTINGS.items()}
        print(write_result("benchmarks.student_corpora", settings, rows, bars_of(rows)), flush=True)


if __name__ == "__main__":
    main()
