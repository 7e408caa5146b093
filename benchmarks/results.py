"""The format of result files: what was measured, how, on which machine, and whether the bars hold."""

import json
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from modeling_rabtriever.evaluation.report import Interval
from modeling_rabtriever.files import write_json

FOLDER = Path(__file__).parent / "results"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def bar(
    name: str,
    value: float | None,
    op: str,
    limit: float,
    n: int,
    interval: Sequence[float] | None = None,
    why: str | None = None,
) -> dict[str, Any]:
    """One figure and its bar.

    Args:
        name: what was measured, with its unit.
        value: the measured figure; `None` if it could not be measured, with `why`.
        op: `">="`, `"<="` or `"<"`.
        limit: the bar.
        n: number of queries, runs or repeats behind the value.
        interval: its 95% interval.
        why: why there is no value.
    """
    entry: dict[str, Any] = {"name": name, "value": value, "op": op, "limit": limit, "n": n}
    if value is None:
        return entry | {"why": why}
    entry["holds"] = COMPARISONS[op](value, limit)
    return entry if interval is None else entry | {"interval": list(interval)}


def write_result(
    module: str, settings: dict[str, Any], rows: Sequence[dict[str, Any]], bars: Sequence[dict[str, Any]]
) -> Path:
    """Writes `results/<script name>.json` and returns its path.

    Args:
        module: the script's module, such as `benchmarks.quickstart_household`.
        settings: of the run.
        rows: the measurements.
        bars: the figures with a bar.
    """
    path = _path(module)
    write_json(
        path,
        {
            "name": path.stem,
            "command": f"python -m {module}",
            "commit": _commit(),
            "machine": f"{os.cpu_count()} cores, {_processor()}, Python {sys.version.split()[0]}",
            "date": date.today().isoformat(),
            "settings": settings,
            "rows": list(rows),
            "bars": list(bars),
        },
    )
    return path


def with_earlier(module: str, rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the result file that the new rows do not replace, then the new rows, with date and machine.

    Args:
        module: the script's module.
        rows: the new measurements.
        keys: the fields that identify a row.
    """
    path = _path(module)
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    replaced = {tuple(row[key] for key in keys) for row in rows}
    kept = [row for row in earlier if tuple(row[key] for key in keys) not in replaced]
    origin = {"date": date.today().isoformat(), "machine": _processor(), "commit": _commit()}
    return kept + [{**row, **origin} for row in rows]


def grouped(rows: Sequence[dict[str, Any]], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Rows grouped by the values of `keys` (the seeds of one setting), in order of first occurrence."""
    for values in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        yield values, [row for row in rows if tuple(row[key] for key in keys) == values]


def mean_kept(rows: Sequence[dict[str, Any]]) -> float:
    """The share of the teacher's R@1 on test that the system of these rows keeps, mean over seeds."""
    tests = [row["test"] for row in rows]
    return sum(test["system"]["mean"] / test["teacher"]["mean"] for test in tests) / len(tests)


def mean_interval(intervals: Sequence[Mapping[str, float]]) -> str:
    """Percent for tables: the mean over seeds, and in brackets the mean of their 95% intervals."""
    return mean_over_seeds(intervals).percent()


def mean_over_seeds(intervals: Sequence[Mapping[str, float]]) -> Interval:
    """The mean over seeds of their means, and of both ends of their 95% intervals."""
    return Interval(*[float(np.mean([part[key] for part in intervals])) for key in ("mean", "low", "high")])


def _path(module: str) -> Path:
    return FOLDER / f"{module.rpartition('.')[2]}.json"


def _commit() -> str:
    return _git("rev-parse", "HEAD") + ("-dirty" if _git("status", "--porcelain", "--", "*.py") else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
