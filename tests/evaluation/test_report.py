"""Reports: intervals, retention, the table, JSON, and the plots."""

import doctest
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.image
import pytest
import torch

from benchmarks.results import FOLDER as RESULTS
from modeling_rabtriever.evaluation import Interval, Report, SystemReport, report, splits
from modeling_rabtriever.evaluation.comparison import evaluate_systems
from modeling_rabtriever.evaluation.plots import (
    recall_curves,
    score_histograms,
    student_against_teacher,
    training_curves,
)
from modeling_rabtriever.evaluation.report import retention_line

RELEVANT = [{0: 1}, {1: 1}, {2: 1}, {0: 1}]
TEACHER = torch.eye(3)[[0, 1, 2, 0]]
STUDENT = torch.eye(3)[[0, 1, 0, 0]]


def test_retention_is_the_ratio_to_the_teacher() -> None:
    found = evaluate_systems({"teacher": TEACHER, "Rabtriever": STUDENT}, RELEVANT)
    assert found.n == 4 and found.documents == 3
    assert found.systems["teacher"].metrics["success@1"].mean == 1
    kept = found.retention["success@1"]
    assert kept.mean == pytest.approx(0.75) and kept.low <= 0.75 <= kept.high
    assert "R@1 0.750" in retention_line(found)


def test_no_retention_of_nothing() -> None:
    wrong = -TEACHER.repeat(1, 5)  # fifteen documents; the relevant ones come last
    found = evaluate_systems({"teacher": wrong, "Rabtriever": wrong}, RELEVANT)
    assert "success@1" not in found.retention
    rarely = torch.eye(3)[[0, 0, 0, 1]]  # one hit of four: its interval reaches 0, a ratio would have no upper bound
    found = evaluate_systems({"teacher": rarely, "Rabtriever": TEACHER}, RELEVANT)
    assert found.systems["teacher"].metrics["success@1"].mean == 0.25 and "success@1" not in found.retention
    assert retention_line(evaluate_systems({"BM25": TEACHER}, RELEVANT)) == ""


def test_table_has_a_row_per_system_and_marks_the_best() -> None:
    found = evaluate_systems({"BM25": STUDENT, "teacher": TEACHER}, RELEVANT)
    timed = {name: replace(found.systems[name], milliseconds=1.5) for name in ("BM25", "teacher")}
    lines = replace(found, split="test", systems={**found.systems, **timed}).table.splitlines()
    assert len(lines) == 5 and lines[0].startswith("| test: n = 4, 3 documents | R@1 |")
    assert lines[2].startswith("| random | 33.3 [") and lines[2].endswith("|  |")  # nothing is timed
    assert lines[3].startswith("| BM25 | 75.0 [") and lines[4].startswith("| teacher | **100.0 [")
    assert lines[4].endswith("| 1.50 |")


def _report(**scores: torch.Tensor) -> Report:
    """Forty queries, each answered by the document of its number, among forty."""
    return replace(evaluate_systems(scores, [{row: 1} for row in range(40)]), task="numbers", split="test")


def _right(share: float) -> torch.Tensor:
    """Scores by which the first `share` of the forty queries finds its document first, the others last."""
    signs = torch.where(torch.arange(40) < 40 * share, 1.0, -1.0)
    return torch.diag(signs)


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ({}, [{0: 1}], "scores are {}; accepted: one or more systems"),
        ({"a": torch.ones(1, 3), "b": torch.ones(1, 2)}, [{0: 1}], "accepted: .* the same queries and corpus for all"),
        ({"a": torch.ones(1, 3)}, [{3: 1}], "relevant names corpus row 3; accepted: rows of 3 documents"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    scores: dict[str, torch.Tensor], relevant: list[dict[int, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_systems(scores, relevant)


def test_json_holds_the_whole_report() -> None:
    part = _report(BM25=_right(0.3), teacher=_right(0.9), Rabtriever=_right(0.8))
    systems = {**part.systems, "BM25": replace(part.systems["BM25"], milliseconds=1.5)}
    whole = replace(evaluate_systems({"BM25": _right(0.2)}, [{row: 1} for row in range(40)]), documents=4000)
    too_long = Report(n=30, documents=500, systems={}, minutes=7.5)
    corpus = {"calibration": {"ece": 0.1, "groups": []}, "faithfulness": {"scores": {"kl": 0.5}}}
    full = replace(part, systems=systems, repeated={"test in train": 0.02}, **corpus)
    for found in (full, replace(part, documents=4000, candidates=10, whole=whole, sample=too_long)):
        assert Report.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_json_has_the_keys_that_cards_and_older_runs_have() -> None:
    found = _report(BM25=_right(0.3), teacher=_right(0.9), Rabtriever=_right(0.8))
    written = found.to_json()
    shared = ["task", "split", "documents", "first_stage", "repeated"]
    assert list(written) == [*shared, "n", "systems", "teacher_over", "student_over_teacher", "retention"]
    assert written["systems"]["BM25"]["success@1"].keys() == {"mean", "low", "high"}
    written = replace(found, candidates=10, whole=found).to_json()
    assert written["first_stage"] == {"system": "BM25", "documents": 10} and written["sample"] is None
    old = {"n": 2, "documents": 5, "systems": {"BM25": {"mrr@10": {"mean": 0.5, "low": 0.0, "high": 1.0}}}}
    old |= {"first_stage": {"system": "BM25", "documents": 3}, "whole": {"n": 2, "systems": {}}}
    assert Report.from_json(old) == Report(
        n=2,
        documents=5,
        systems={"BM25": SystemReport({"mrr@10": Interval(0.5, 0.0, 1.0)})},
        candidates=3,
        whole=Report(n=2, documents=5, systems={}),
    )
    with pytest.raises(ValueError, match=r"the report lacks documents, systems; accepted: the output of Report"):
        Report.from_json({"n": 2})


@pytest.mark.parametrize("row", json.loads((RESULTS / "evaluation_tasks.json").read_text())["rows"])
def test_reports_of_older_runs_lose_nothing(row: dict[str, Any]) -> None:
    older = row["test"]
    written = Report.from_json(older).to_json()
    systems = written["systems"]
    assert {name: systems[name] | reached for name, reached in older["systems"].items()} == systems
    assert {**written, **older, "systems": systems} == written


@pytest.mark.parametrize("module", [report, splits])
def test_examples_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


def test_a_good_teacher_and_its_student_are_no_reason_to_warn() -> None:
    found = _report(BM25=_right(0.3), teacher=_right(0.9), Rabtriever=_right(0.95))
    assert found.warnings == []
    assert "Warning" not in found.markdown()


def test_a_student_far_ahead_of_its_teacher_is_a_warning() -> None:
    found = _report(BM25=_right(0.1), teacher=_right(0.7), Rabtriever=_right(0.95))
    (warning,) = found.warnings
    assert warning.startswith("Rabtriever's R@1, 95.0, is far above its teacher's, 70.0 (difference +25.0 [")
    assert (
        "This does not mean that distillation worked: the teacher has not learned" in warning
        and "train it longer" in warning
    )
    assert f"**Warning.** {warning}\n" in found.markdown()


def test_a_student_within_the_interval_of_its_teacher_is_none() -> None:
    found = _report(teacher=_right(0.7), Rabtriever=_right(0.75))
    assert found.retention["success@1"].mean > 1.05
    assert found.warnings == []


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
    found = _report(**{name: _right(share) for name, share in baselines.items()}, teacher=_right(teacher))
    (warning,) = found.warnings
    assert warning.startswith(message)
    assert "it has not learned the task" in warning and "Train it longer" in warning


def test_what_candidates_hide_is_a_warning() -> None:
    found = _report(BM25=_right(0.2), teacher=_right(0.75), Rabtriever=_right(0.75))
    corpus = _report(BM25=_right(0.05), teacher=_right(0.15), Rabtriever=_right(0.15))
    searched = {name: corpus.systems[name] for name in ("random", "BM25", "Rabtriever")}
    whole = Report(n=40, documents=4000, systems=searched)
    found = replace(found, candidates=10, documents=4000, whole=whole, sample=replace(corpus, documents=500))
    text = found.markdown()
    cut = "is 15.0 among 500 of the 4,000 documents (40 queries): the candidates hide documents"
    assert f"**Warning.** The R@1 of teacher among 10 documents of BM25, 75.0, {cut}" in text
    assert "**Warning.** The R@1 of Rabtriever among 10 documents of BM25, 75.0, is 15.0 among all 4,000 docum" in text
    assert "Only the first 10 documents of BM25 were ranked. Among all 4,000 documents: Rabtriever R@1 15.0 [" in text
    assert "With 40 queries and 500 of the 4,000 documents, including the relevant ones: teacher R@1 15.0 [" in text
    text = replace(found, sample=Report(n=40, documents=500, systems={}, minutes=7.2)).markdown()
    assert "The teacher was not evaluated on the corpus: 40 queries and 500 of the 4,000 documents would" in text
    assert "about 7 minutes on this machine." in text and "R@1 of teacher among 10" not in text


def test_a_teacher_that_only_the_corpus_unmasks_is_a_warning() -> None:
    """Among the candidates it is above BM25; among many documents it is at the prior, and its student far ahead."""
    found = _report(**{"label prior": _right(0.1)}, teacher=_right(0.7), Rabtriever=_right(0.75))
    sample = _report(**{"label prior": _right(0.15)}, teacher=_right(0.15), Rabtriever=_right(0.9))
    found = replace(found, candidates=10, documents=4000, sample=replace(sample, documents=500))
    learned, ahead, lost = found.warnings
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
