"""Reports: intervals, retention, the table, and the plots."""

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch

from modeling_rabtriever.evaluation.plots import (
    recall_curves,
    score_histograms,
    student_against_teacher,
    training_curves,
)
from modeling_rabtriever.evaluation.report import evaluate_systems, markdown_table, report_text, retention_line
from modeling_rabtriever.evaluation.report_warnings import warnings

RELEVANT = [{0: 1}, {1: 1}, {2: 1}, {0: 1}]
TEACHER = torch.eye(3)[[0, 1, 2, 0]]
STUDENT = torch.eye(3)[[0, 1, 0, 0]]


def test_retention_is_the_ratio_to_the_teacher() -> None:
    report = evaluate_systems({"teacher": TEACHER, "Rabtriever": STUDENT}, RELEVANT)
    assert report["n"] == 4
    assert report["systems"]["teacher"]["success@1"]["mean"] == 1
    kept = report["retention"]["success@1"]
    assert kept["mean"] == pytest.approx(0.75) and kept["low"] <= 0.75 <= kept["high"]
    assert "R@1 0.750" in retention_line(report)


def test_no_retention_of_nothing() -> None:
    wrong = -TEACHER.repeat(1, 5)  # fifteen documents; the relevant ones come last
    report = evaluate_systems({"teacher": wrong, "Rabtriever": wrong}, RELEVANT)
    assert "success@1" not in report["retention"]
    rarely = torch.eye(3)[[0, 0, 0, 1]]  # one hit of four: its interval reaches 0, a ratio would have no upper bound
    report = evaluate_systems({"teacher": rarely, "Rabtriever": TEACHER}, RELEVANT)
    assert report["systems"]["teacher"]["success@1"]["mean"] == 0.25 and "success@1" not in report["retention"]
    assert retention_line(evaluate_systems({"BM25": TEACHER}, RELEVANT)) == ""


def test_table_has_a_row_per_system_and_marks_the_best() -> None:
    report = evaluate_systems({"BM25": STUDENT, "teacher": TEACHER}, RELEVANT) | {"split": "test"}
    for name in ("BM25", "teacher"):
        report["systems"][name]["milliseconds"] = 1.5
    lines = markdown_table(report, 3).splitlines()
    assert len(lines) == 5 and lines[0].startswith("| test: n = 4, 3 documents | R@1 |")
    assert lines[2].startswith("| random | 33.3 [") and lines[2].endswith("|  |")  # nothing is timed
    assert lines[3].startswith("| BM25 | 75.0 [") and lines[4].startswith("| teacher | **100.0 [")


def _report(**scores: torch.Tensor) -> dict[str, Any]:
    """Forty queries, each answered by the document of its number, among forty."""
    report = evaluate_systems(scores, [{row: 1} for row in range(40)])
    return report | {"split": "test", "documents": 40}


def _right(share: float) -> torch.Tensor:
    """Scores by which the first `share` of the forty queries finds its document first, the others last."""
    signs = torch.where(torch.arange(40) < 40 * share, 1.0, -1.0)
    return torch.diag(signs)


def test_a_good_teacher_and_its_student_are_no_reason_to_warn() -> None:
    report = _report(BM25=_right(0.3), teacher=_right(0.9), Rabtriever=_right(0.95))
    assert warnings(report, "teacher", "Rabtriever") == []
    assert "Warning" not in report_text(report)


def test_a_student_far_ahead_of_its_teacher_is_a_warning() -> None:
    report = _report(BM25=_right(0.1), teacher=_right(0.7), Rabtriever=_right(0.95))
    (found,) = warnings(report, "teacher", "Rabtriever")
    assert found.startswith("Rabtriever's R@1, 95.0, is far above its teacher's, 70.0 (difference +25.0 [")
    assert "That is no success of distillation: the teacher has not learned" in found and "train it longer" in found
    assert f"**Warning.** {found}\n" in report_text(report)


def test_a_student_within_the_interval_of_its_teacher_is_none() -> None:
    report = _report(teacher=_right(0.7), Rabtriever=_right(0.75))
    assert report["retention"]["success@1"]["mean"] > 1.05
    assert warnings(report, "teacher", "Rabtriever") == []


@pytest.mark.parametrize(
    ("baselines", "teacher", "message"),
    [
        (
            {"BM25": 0.5, "label prior": 0.3},
            0.3,
            "The teacher's MRR@10, 30.0, is below BM25's, 50.0 (difference -20.0",
        ),
        (
            {"BM25": 0.3, "label prior": 0.5},
            0.5,
            "The teacher's MRR@10, 50.0, is hardly above the label prior's, 50.0",
        ),
        ({}, 0.05, "The teacher's MRR@10, 5.0, is hardly above a random order's, 7.3 (difference -2.3 ["),
    ],
)
def test_a_teacher_near_a_trivial_baseline_is_a_warning(
    baselines: dict[str, float], teacher: float, message: str
) -> None:
    report = _report(**{name: _right(share) for name, share in baselines.items()}, teacher=_right(teacher))
    (found,) = warnings(report, "teacher", "Rabtriever")
    assert found.startswith(message)
    assert "it has not learned the task" in found and "Train it longer" in found


def test_what_candidates_hide_is_a_warning() -> None:
    report = _report(BM25=_right(0.2), teacher=_right(0.75), Rabtriever=_right(0.75))
    report |= {"first_stage": {"system": "BM25", "documents": 10}, "documents": 4000}
    corpus = _report(BM25=_right(0.05), teacher=_right(0.15), Rabtriever=_right(0.15))
    whole = {"n": 40, "systems": {name: corpus["systems"][name] for name in ("random", "BM25", "Rabtriever")}}
    text = report_text(report | {"whole": whole, "sample": {**corpus, "documents": 500}})
    cut = "is 15.0 among 500 of the 4,000 documents (40 queries): the candidates hide documents"
    assert f"**Warning.** The R@1 of teacher among 10 documents of BM25, 75.0, {cut}" in text
    assert "**Warning.** The R@1 of Rabtriever among 10 documents of BM25, 75.0, is 15.0 among all 4,000 docum" in text
    assert "Ranked were the first 10 documents of BM25 alone. Among all 4,000 documents: Rabtriever R@1 15.0 [" in text
    assert "With 40 queries and 500 of the 4,000 documents, the relevant ones among them: teacher R@1 15.0 [" in text
    text = report_text(report | {"whole": whole, "sample": {"n": 40, "documents": 500, "minutes": 7.2}})
    assert "How the teacher ranks the corpus was not measured: 40 queries and 500 of the 4,000 documents would" in text
    assert "about 7 minutes here." in text and "R@1 of teacher among 10" not in text


def test_a_teacher_that_only_the_corpus_unmasks_is_a_warning() -> None:
    """Among the candidates it is above BM25; among many documents it is at the prior, and its student far ahead."""
    report = _report(**{"label prior": _right(0.1)}, teacher=_right(0.7), Rabtriever=_right(0.75))
    report |= {"first_stage": {"system": "BM25", "documents": 10}, "documents": 4000, "whole": None}
    sample = _report(**{"label prior": _right(0.15)}, teacher=_right(0.15), Rabtriever=_right(0.9))
    learned, ahead, lost = warnings(report | {"sample": {**sample, "documents": 500}}, "teacher", "Rabtriever")
    assert learned.startswith("The teacher's MRR@10 among 500 of the 4,000 documents (40 queries), 15.0, is hardly abo")
    assert ahead.startswith(
        "Rabtriever's R@1 among 500 of the 4,000 documents (40 queries), 90.0, is far above its teach"
    )
    assert lost.startswith("The R@1 of teacher among 10 documents of BM25, 70.0, is 15.0 among 500 of the")


def test_plots_are_pictures(tmp_path: Path) -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    teacher_log = [*log, {"step": 2, "eval_leads_group": 0.5}]
    student_log = [*log, {"step": 2, "eval_success@1": 0.7}]
    training_curves(teacher_log, student_log, tmp_path / "curves.png")
    student_against_teacher(STUDENT + 0.1, TEACHER, RELEVANT, tmp_path / "scatter.png")
    recall_curves({"a": [[0, 1], [1, 0], [0, 1], [2, 1]], "b": [[0], [1], [2], [0]]}, RELEVANT, tmp_path / "recall.png")
    score_histograms({"teacher": TEACHER, "Rabtriever": STUDENT}, RELEVANT, tmp_path / "scores.png")
    for name in ("curves.png", "scatter.png", "recall.png", "scores.png"):
        assert matplotlib.image.imread(tmp_path / name).shape[0] > 300
