"""What the quickstart promises, over seeds: time, memory, teacher quality, retention; and the full test splits.

Usage:
    python -m benchmarks.quickstart_household            # about half an hour on two cores
    python -m benchmarks.quickstart_household --seeds 0

Per seed: runs the quickstart in a process of its own, then scores all queries of both test splits.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.results import bar, write_result
from modeling_rabtriever.evaluation import evaluate
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.report import Report
from modeling_rabtriever.tasks.beir import load_beir

TEST_SPLITS = ("test", "test_phrasing")


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """One quickstart from scratch, and its models on the full splits."""
    run = folder / f"household-seed{seed}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "training.quickstart", "--output_dir", str(run), "--seed", str(seed)]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    task = load_beir(run / "data" / "household")
    models, full = [run / stage / "model" for stage in ("teacher", "student")], run / "full-evaluation"
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_gb": json.loads((run / "quickstart.json").read_text())["peak_memory_gb"],
        "quickstart": json.loads((run / "evaluation" / "test.json").read_text()),
        "full": {name: evaluate(models, task, name, full, seed=seed).to_json() for name in TEST_SPLITS},
    }


def main() -> None:
    """Measures all seeds and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="where the runs go; must be new")
    arguments = parser.parse_args()
    rows = [measure(seed, arguments.runs) for seed in arguments.seeds]
    bars = []
    for row in rows:
        report, label = Report.from_json(row["quickstart"]), f"household test, seed {row['seed']}"
        teacher, kept = report.systems[TEACHER].metrics["success@1"], report.retention["success@1"]
        bars += [
            bar(f"teacher R@1, {label}", teacher.mean, ">=", 0.90, report.n, (teacher.low, teacher.high)),
            bar(f"student R@1 / teacher R@1, {label}", kept.mean, ">=", 0.95, report.n, (kept.low, kept.high)),
        ]
    for name, key, limit in (("wall seconds", "seconds", 480), ("peak memory, GB", "peak_memory_gb", 4)):
        bars.append(
            bar(f"quickstart, median {name}", statistics.median(row[key] for row in rows), "<", limit, len(rows))
        )
    print(write_result("benchmarks.quickstart_household", {"seeds": arguments.seeds}, rows, bars))


if __name__ == "__main__":
    main()
