"""From scores to a report: metrics with intervals, retention against the teacher, a Markdown table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .chance import random_metrics
from .faithfulness import faithfulness_line
from .metrics import (
    TABLE_METRICS,
    Relevant,
    Run,
    bootstrap_interval,
    bootstrap_ratio_interval,
    query_metrics,
    rank_documents,
)
from .report_warnings import warnings

DEPTH = 100
METRICS = (*TABLE_METRICS, "ndcg@10", "recall@100", "map@100")
RANDOM = "random"
TEACHER, STUDENT = "teacher", "Rabtriever"  # whom reports hold against each other
TRIVIAL = (RANDOM, "label prior", "BM25")  # what a teacher has to be better than
COMPARED = ("success@1", "mrr@10")
Values = dict[str, dict[str, np.ndarray]]  # system -> metric -> (n,)
COLUMNS = {"success@1": "R@1", "success@3": "R@3", "success@5": "R@5", "mrr@10": "MRR@10"}
NOTE = (
    "Every document of the corpus is ranked unless it says otherwise; random is the expectation of a random order. "
    "R@k: share of queries with a relevant document among the first k, in percent (success@k; the recall where one "
    "document is relevant). Brackets: 95% bootstrap interval over queries. ms: one query at a time, text in, scores of "
    "the whole corpus out, median; the teacher's document prefixes and Rabtriever's vectors are computed before."
)


def evaluate_systems(scores: Mapping[str, Tensor], relevant: Relevant, seed: int = 0) -> dict[str, Any]:
    """Metrics of every system on the same queries.

    Args:
        scores: system name -> `(n, m)` scores of the whole corpus.
        relevant: judgements of the `n` queries.
        seed: of the bootstrap intervals.

    Returns:
        `{"n": ..., "systems": {name: {metric: {"mean", "low", "high"}}}}`, the first system a random order; and with
        both a `teacher` and a `Rabtriever` also `"retention"`: metric -> the ratio of their means with a paired
        interval, for metrics of which the teacher's own interval does not reach 0. `"teacher_over"` and
        `"student_over_teacher"`: the differences to trivial baselines and to the teacher, with paired intervals.

    Raises:
        ValueError: scores are NaN, or fit neither the queries nor each other.
    """
    corpus_size = next(iter(scores.values())).shape[1]
    runs = {name: rank_documents(matrix, DEPTH) for name, matrix in scores.items()}
    return summary(query_values(runs, relevant, corpus_size), seed)


def query_values(
    runs: Mapping[str, Run], relevant: Relevant, corpus_size: int, candidates: Run | None = None
) -> Values:
    """Every metric of every system, query by query; first what a random order of the same documents would score.

    Args:
        runs: system -> per query the corpus rows it ranks, best first.
        relevant: judgements.
        corpus_size: number of documents.
        candidates: per query the rows every system ranks; `None` means the corpus.
    """
    chance = {RANDOM: random_metrics(relevant, corpus_size, METRICS, candidates)}
    return chance | {name: query_metrics(run, relevant, METRICS) for name, run in runs.items()}


def summary(values: Values, seed: int = 0) -> dict[str, Any]:
    """The report of `evaluate_systems`, from query-level values."""
    report: dict[str, Any] = {
        "n": len(values[RANDOM][METRICS[0]]),
        "systems": {name: {m: _interval(v, seed) for m, v in metrics.items()} for name, metrics in values.items()},
    }
    if TEACHER in values:
        trivial = [name for name in TRIVIAL if name in values]
        report["teacher_over"] = {name: _differences(values[TEACHER], values[name], seed) for name in trivial}
    if {TEACHER, STUDENT} <= values.keys():
        report["student_over_teacher"] = _differences(values[STUDENT], values[TEACHER], seed)
        teacher, student = values[TEACHER], values[STUDENT]
        sure = [m for m in teacher if report["systems"][TEACHER][m]["low"] > 0]  # else the ratio has no upper bound
        report["retention"] = {m: _retention(student[m], teacher[m], seed) for m in sure}
    return report


def markdown_table(report: Mapping[str, Any], corpus_size: int) -> str:
    """The report as a Markdown table, best R@1 in bold."""
    systems = report["systems"]
    best = max(metrics["success@1"]["mean"] for metrics in systems.values())
    lines = [
        f"| {report['split']}: n = {report['n']}, {corpus_size} documents | "
        + " | ".join([*COLUMNS.values(), "ms per query"])
        + " |",
        "|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for name, metrics in systems.items():
        cells = [_cell(metrics[metric]) for metric in COLUMNS]
        if metrics["success@1"]["mean"] == best:
            cells[0] = f"**{cells[0]}**"
        timed = f"{metrics['milliseconds']:.2f}" if "milliseconds" in metrics else ""
        lines.append(f"| {name} | " + " | ".join([*cells, timed]) + " |")
    return "\n".join(lines)


def report_text(report: Mapping[str, Any], *more: str) -> str:
    """A split's table, warnings, and sentences on its first stage, the student's faithfulness and repeated queries.

    Args:
        report: of one split, as `stages.evaluate` writes it.
        more: sentences of the caller's own, put behind the others.
    """
    parts = [first_stage_line(report), retention_line(report)]
    if "faithfulness" in report:
        parts.append(faithfulness_line(report["faithfulness"]))
    parts += [
        f"Leakage: {share:.1%} of the queries of {pair} word by word."
        for pair, share in report.get("repeated", {}).items()
    ]
    cautions = [f"**Warning.** {warning}" for warning in warnings(report, TEACHER, STUDENT)]
    table = markdown_table(report, report["documents"])
    return "\n\n".join(filter(None, [table, *cautions, " ".join(filter(None, [*parts, *more]))]))


def first_stage_line(report: Mapping[str, Any]) -> str:
    """What was ranked, where it was not the corpus, and what is known of the corpus then."""
    if report.get("first_stage") is None:
        return ""
    stage, whole, sample = report["first_stage"], report.get("whole"), report.get("sample")
    parts = [f"Ranked were the first {stage['documents']} documents of {stage['system']} alone."]
    if whole is not None and STUDENT in whole["systems"]:
        parts.append(f"Among all {report['documents']:,} documents: {_figures(whole, STUDENT)}.")
    if sample is not None and TEACHER in report["systems"]:
        every = sample["documents"] == report["documents"]
        part = "all" if every else f"{sample['documents']:,} of the"
        asked = f"{sample['n']} queries and {part} {report['documents']:,} documents"
        if "systems" in sample:
            found = "; ".join(_figures(sample, name) for name in (TEACHER, STUDENT) if name in sample["systems"])
            parts.append(f"With {asked}{'' if every else ', the relevant ones among them'}: {found}.")
        else:
            parts.append(
                f"How the teacher ranks the corpus was not measured: {asked} would take about {sample['minutes']:.0f} "
                "minutes here."
            )
    return " ".join(parts)


def retention_line(report: Mapping[str, Any]) -> str:
    """One sentence on how much of the teacher the student keeps; empty where the teacher hardly finds anything."""
    parts = [
        f"{COLUMNS[metric]} {ratio['mean']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        for metric, ratio in report.get("retention", {}).items()
        if metric in COMPARED
    ]
    return f"Rabtriever keeps of the teacher: {', '.join(parts)}." if parts else ""


def calibration_line(report: Mapping[str, Any]) -> str:
    """One sentence on the teacher's probabilities."""
    error = report["calibration"]["ece"]
    return f"Calibration of the teacher's sigmoid over all pairs: ECE {error:.3f} (0 is perfect)."


def _interval(values: np.ndarray, seed: int) -> dict[str, float]:
    low, high = bootstrap_interval(values, seed)
    return {"mean": float(values.mean()), "low": low, "high": high}


def _differences(first: dict[str, np.ndarray], second: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    return {metric: _interval(first[metric] - second[metric], seed) for metric in COMPARED}


def _figures(report: Mapping[str, Any], system: str) -> str:
    parts = [f"{COLUMNS[metric]} {_cell(report['systems'][system][metric])}" for metric in COMPARED]
    return f"{system} {', '.join(parts)}"


def _retention(student: np.ndarray, teacher: np.ndarray, seed: int) -> dict[str, float]:
    low, high = bootstrap_ratio_interval(student, teacher, seed)
    return {"mean": float(student.mean() / teacher.mean()), "low": low, "high": high}


def _cell(interval: Mapping[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
