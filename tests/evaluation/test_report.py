"""Reports: intervals, retention, the table, and the plots."""

from pathlib import Path

import matplotlib.image
import pytest
import torch

from evaluation.plots import recall_curves, score_histograms, student_against_teacher, training_curves
from evaluation.report import evaluate_systems, markdown_table, retention_line

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
