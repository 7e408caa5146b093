"""Tables of the comparison of sets, and of what one vector can express; `tables` writes them into the pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.results import grouped, mean_interval
from benchmarks.tasks import TITLES

COLUMNS = {"success@1": "R@1", "ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}


def evaluation_sets(result: Mapping[str, Any]) -> str:
    """One table per set: metrics of every system, means over seeds, with the mean of the 95% intervals."""
    parts = []
    for (name,), rows in grouped(sorted(result["rows"], key=lambda row: row["seed"]), "set"):
        parts.append(_set_table(name, rows, "test"))
        if "whole" in rows[0]:
            parts.append(_set_table(name, rows, "whole"))
    return "\n\n".join(parts)


def _set_table(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> str:
    reports = [row[key] for row in rows]
    first = max(reports, key=lambda report: len(report["systems"]))
    stage = first["first_stage"]
    ranked = f"first {stage['documents']} of {stage['system']}, of " if stage else ""
    head = f"{TITLES[name]}: n = {first['n']:,}, {ranked}{first['documents']:,} documents, {len(rows)} seed(s)"
    if rows[0]["models_of"] != name:
        head += f", models trained on {TITLES[rows[0]['models_of']]}"
    if student := rows[0].get("student"):  # older rows do not have it
        head += f", k = {student['embedding_dim']}"
        if shared := student.get("shared_dim"):  # an option that no longer exists
            head += f", {shared} of them shared"
    lines = [f"| {head} | {' | '.join(COLUMNS.values())} |", "|---|" + "---:|" * len(COLUMNS)]
    for system in first["systems"]:
        found = [report["systems"][system] for report in reports if system in report["systems"]]
        cells = [mean_interval([own[metric] for own in found]) for metric in COLUMNS]
        fewer = f" ({len(found)} seed(s))" if len(found) < len(reports) else ""
        lines.append(f"| {system}{fewer} | {' | '.join(cells)} |")
    return "\n".join([*lines, *retention_lines(reports)])


def retention_lines(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """The share of the teacher's R@1 that the student keeps, by seed; empty without a teacher that finds documents.

    Args:
        reports: as `Report.to_json` gives them, one per seed.
    """
    if not all("success@1" in report.get("retention", {}) for report in reports):
        return []
    kept = [report["retention"]["success@1"] for report in reports]
    seeds = ", ".join(f"{seed['mean']:.3f} [{seed['low']:.3f}, {seed['high']:.3f}]" for seed in kept)
    return ["", f"Rabtriever's R@1 over its teacher's, seed by seed: {seeds}."]


def evaluation_limit(result: Mapping[str, Any]) -> str:
    """Share of queries with both relevant documents first, by form and width, on fitted and on other queries."""
    widths = sorted({row["k"] for row in result["rows"]})
    n, documents = result["settings"]["n"], result["settings"]["documents"]
    head = f"LIMIT-small (n = {n:,}, {documents} documents), both right documents first, by k"
    lines = [f"| {head} | {' | '.join(map(str, widths))} |", "|---|" + "---:|" * len(widths)]
    for key, label in (("fitted", "fitted to all queries"), ("unseen", "unseen fifth of the queries")):
        for (form,), rows in grouped(result["rows"], "form"):
            if key in rows[0]:
                found = [[100 * row[key] for row in rows if row["k"] == width] for width in widths]
                cells = [f"{np.mean(own):.1f} [{min(own):.1f}, {max(own):.1f}]" for own in found]
                lines.append(f"| {form}, {label} | {' | '.join(cells)} |")
    seeds = len({row["seed"] for row in result["rows"]})
    return "\n".join([*lines, "", f"Means over {seeds} seed(s), in brackets the lowest and the highest."])


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "evaluation_sets": evaluation_sets,
    "evaluation_limit": evaluation_limit,
}
