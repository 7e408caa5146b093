"""Our student on whole corpora of thousands of documents, against BM25 and models trained on labels.

Usage:
    python -m benchmarks.student_corpora cose=COSE --teacher cose=runs/cose/seed{seed}/teacher/model \\
        --encoder runs/pretrained/minilm

The methods and the bill are those of `benchmarks.student_equal_bill`; every query of test is ranked against the whole
corpus. For a fixed sample of test queries, the teacher re-ranks the first documents of all methods.
"""

from typing import Any

from benchmarks.opponents import HARD
from benchmarks.results import grouped
from benchmarks.student_equal_bill import ahead_bar, kept_bar, run

METHODS = ("KL", "InfoNCE", HARD)


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against BM25 and each trained method, and against the teacher on the documents that all methods found."""
    bars = []
    for (_, _), here in grouped(rows, "task", "start"):
        measured = {row["method"] for row in here}
        bars += [ahead_bar(here, rival, rival) for rival in ("BM25", *METHODS) if rival in measured]
        bars.append(kept_bar(here, "ndcg@10", 0.95))
    return bars


if __name__ == "__main__":
    run("benchmarks.student_corpora", __doc__, "runs/benchmark/corpora", METHODS, bars_of)
