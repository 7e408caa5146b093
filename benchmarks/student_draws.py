"""On-policy candidates at the size of large corpora: seconds per thousand queries, and memory besides the vectors.

Usage:
    python -m benchmarks.student_draws    # five minutes on two cores

Vectors are random. This measures only the draw, without encoding before it and scoring after it. Each size runs in a
separate process, to measure its own peak memory.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.results import bar, write_result
from modeling_rabtriever.distillation.candidates import best_documents, draw_on_policy

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, QUERIES, SCORED, DRAWN, REPEATS = 256, 256, 32, 8, 3
MILLION_SECONDS = 60.0  # per thousand queries
EXTRA_BYTES = 1 << 30  # in addition to the vectors; a table of 10,000 queries and a million documents would take 40 GB


def measure(documents: int) -> dict[str, Any]:
    """One size; call it in a new process, because peak memory is that of the process."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(documents, WIDTH, generator=generator)
    queries = torch.randn(QUERIES, WIDTH, generator=generator)
    scored = torch.randint(documents, (QUERIES, SCORED), generator=generator)
    before = _peak_bytes()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        draw_on_policy(*best_documents(queries, vectors, scored), DRAWN, generator)
        taken.append(time.perf_counter() - started)
    seconds = statistics.median(taken) * 1000 / QUERIES
    return {"documents": documents, "seconds_per_1000_queries": seconds, "extra_bytes": _peak_bytes() - before}


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest corpus."""
    largest = rows[-1]
    name = f"{largest['documents']:,} documents"
    return [
        bar(f"seconds per 1,000 queries, {name}", largest["seconds_per_1000_queries"], "<=", MILLION_SECONDS, REPEATS),
        bar(f"bytes beside the vectors, {name}", largest["extra_bytes"], "<=", EXTRA_BYTES, 1),
    ]


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measures every size in a separate process and writes the result."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    rows = []
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.student_draws", str(size)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], flush=True)
    settings = {"width": WIDTH, "queries": QUERIES, "asked": SCORED, "drawn": DRAWN, "threads": torch.get_num_threads()}
    print(write_result("benchmarks.student_draws", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
