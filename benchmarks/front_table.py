"""The one table of the README: household and the public sets in one place, from three result files."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.results import grouped, mean_interval
from benchmarks.tasks import STARTS, TITLES

SOURCES = ("quickstart_household", "student_equal_bill", "student_corpora")
METRIC = "mrr@10"
ON_LABELS = ("InfoNCE", "InfoNCE, hard negatives", "TF-IDF + logistic regression")
HOUSEHOLD = {"test": "household", "test_phrasing": "household, situations not in training"}

Cells = dict[str, Sequence[Mapping[str, float]]]  # system -> its metric, seed by seed


def front_page(household: Mapping[str, Any], *measured: Mapping[str, Any]) -> str:
    """MRR@10 on each task: what needs no training, what the labels alone give, the teacher, Rabtriever.

    Args:
        household: the result `quickstart_household`.
        measured: results with one row per task, start and method, such as `student_equal_bill`.
    """
    names = ["MRR@10", "documents", "BM25", "encoder as it is", "trained on labels alone", "teacher", "Rabtriever"]
    lines = [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]
    for split, title in HOUSEHOLD.items():
        reports = [row["full"][split] for row in household["rows"]]
        systems = {name: [report["systems"][name][METRIC] for report in reports] for name in reports[0]["systems"]}
        ours = {"ours": systems["Rabtriever"], **systems}
        lines.append(_line(f"{title} (n = {reports[0]['n']:,})", ours, f"{reports[0]['documents']:,}"))
    for result in measured:
        for (task, start), rows in grouped(result["rows"], "task", "start"):
            if task == "household":  # has rows of three seeds
                continue
            cells = {method: [row[METRIC] for row in own] for (method,), own in grouped(rows, "method")}
            title = f"{TITLES[task]}, from {STARTS.get(start, start)} (n = {rows[0]['n']:,})"
            lines.append(_line(title, cells, f"{rows[0]['documents']:,}"))
    return "\n".join(lines)


def _line(title: str, cells: Cells, documents: str) -> str:
    on_labels = [cells[name] for name in ON_LABELS if name in cells]
    best = max(on_labels, key=lambda seeds: sum(seed["mean"] for seed in seeds), default=None)
    shown = [cells.get("BM25"), cells.get("as it is"), best, cells["teacher"], cells["ours"]]
    seeds = len(cells["ours"])
    name = f"{title}, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"| {name} | {documents} | {' | '.join('' if one is None else mean_interval(one) for one in shown)} |"
