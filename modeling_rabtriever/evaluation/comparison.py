"""Compares systems on the same queries: from scores to a report with intervals and paired differences."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from .chance import random_metrics
from .labels import COMPARED, RANDOM, STUDENT, TEACHER, TRIVIAL
from .metrics import (
    TABLE_METRICS,
    Relevant,
    Run,
    query_metrics,
    rank_documents,
)
from .report import Interval, Report, SystemReport

DEPTH = 100  # documents of a ranking that are kept
REPORTED = (*TABLE_METRICS, "ndcg@10", "recall@100", "map@100")
Values = dict[str, dict[str, np.ndarray]]  # system -> metric -> (n,)


def evaluate_systems(scores: Mapping[str, Tensor], relevant: Relevant, seed: int = 0) -> Report:
    """Metrics of every system on the same queries, from its scores `(n, m)` of the corpus, and of a random order.

    Raises:
        ValueError: scores are NaN, or do not fit the queries or each other.
    """
    shapes = {name: tuple(matrix.shape) for name, matrix in scores.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"scores are {shapes}; accepted: one or more systems, the same queries and corpus for all")
    documents = next(iter(scores.values())).shape[-1]
    beyond = [row for labels in relevant for row in labels if not 0 <= row < documents]
    if beyond:
        raise ValueError(f"relevant names corpus row {beyond[0]}; accepted: rows of {documents} documents")
    runs = {name: rank_documents(matrix, DEPTH) for name, matrix in scores.items()}
    return compare(query_values(runs, relevant, documents), documents, seed)


def query_values(runs: Mapping[str, Run], relevant: Relevant, documents: int, candidates: Run | None = None) -> Values:
    """Every metric of every system for each query, after the expected metrics of a random order of the documents.

    If `candidates` are given, every system ranks only these corpus rows for each query; otherwise, the corpus.
    """
    chance = {RANDOM: random_metrics(relevant, documents, REPORTED, candidates)}
    return chance | {name: query_metrics(run, relevant, REPORTED) for name, run in runs.items()}


def compare(values: Values, documents: int, seed: int = 0) -> Report:
    """The report on values of `query_values` in a corpus of so many documents; differences are resampled in pairs."""
    systems = {
        name: SystemReport({metric: Interval.of(own, seed) for metric, own in metrics.items()})
        for name, metrics in values.items()
    }
    report = Report(n=len(values[RANDOM][COMPARED[0]]), documents=documents, systems=systems)
    if TEACHER not in values:
        return report
    teacher = values[TEACHER]
    over = {name: _differences(teacher, values[name], seed) for name in TRIVIAL if name in values}
    if STUDENT not in values:
        return replace(report, teacher_over=over)
    student = values[STUDENT]
    # If the teacher's interval reaches 0, the ratio has no upper bound.
    sure = [metric for metric, own in systems[TEACHER].metrics.items() if own.low > 0]
    return replace(
        report,
        teacher_over=over,
        student_over_teacher=_differences(student, teacher, seed),
        retention={metric: Interval.of_ratio(student[metric], teacher[metric], seed) for metric in sure},
    )


def _differences(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], seed: int) -> dict[str, Interval]:
    return {metric: Interval.of(first[metric] - second[metric], seed) for metric in COMPARED}
