"""Warnings of a report: a teacher that has not learned, a student far ahead of it, candidates that hide failures."""

from typing import TYPE_CHECKING

from .labels import COLUMNS, RANDOM, STUDENT, TEACHER

if TYPE_CHECKING:
    from .report import Interval, Report

AHEAD = 1.1  # a student above this multiple of its teacher's metric is far ahead
LOST = 0.5  # below this share of its metric among candidates, a system fails in the corpus


def warnings(report: "Report") -> list[str]:
    """The warnings for the report on one split, one or two sentences each."""
    found = [*_learned(report, ""), *_ahead(report, "")]
    sample, whole = report.sample, report.whole
    if sample is not None and sample.systems:
        where = f" among {sampled(sample, report)} ({sample.n} queries)"
        found += [*_learned(sample, where), *_ahead(sample, where), *_lost(report, TEACHER, sample, where)]
    if whole is not None:
        found += _lost(report, STUDENT, whole, f" among all {report.documents:,} documents")
    return found


def sampled(sample: "Report", report: "Report") -> str:
    """How many of a report's documents are in its sample, in words."""
    part = "all" if sample.documents == report.documents else f"{sample.documents:,} of the"
    return f"{part} {report.documents:,} documents"


def _learned(report: "Report", where: str) -> list[str]:
    """Warns if the teacher is not clearly better than every trivial baseline."""
    over = {name: by["mrr@10"] for name, by in report.teacher_over.items() if by["mrr@10"].low <= 0}
    if not over:
        return []
    worst = min(over, key=lambda name: over[name].mean)
    teacher, baseline = report.systems[TEACHER].metrics["mrr@10"], report.systems[worst].metrics["mrr@10"]
    whose = f"{worst}'s"
    if worst == RANDOM:
        whose = "a random order's"
    elif worst == "label prior":
        whose = "the label prior's"
    relation = "below" if over[worst].high < 0 else "hardly above"
    return [
        f"The teacher's MRR@10{where}, {_percent(teacher)}, is {relation} {whose}, {_percent(baseline)} (difference "
        f"{_difference(over[worst])}): it has not learned the task, and a student cannot learn it from this teacher. "
        "Train it longer, start from a pretrained model, or give it more training queries."
    ]


def _ahead(report: "Report", where: str) -> list[str]:
    for metric, difference in report.student_over_teacher.items():
        student, teacher = report.systems[STUDENT].metrics[metric], report.systems[TEACHER].metrics[metric]
        if difference.low > 0 and student.mean > AHEAD * teacher.mean:
            return [
                f"{STUDENT}'s {COLUMNS[metric]}{where}, {_percent(student)}, is far above its teacher's, "
                f"{_percent(teacher)} (difference {_difference(difference)}). This does not mean that distillation "
                "worked: the teacher has not learned what the student ranks by. Check its metrics on the whole corpus, "
                "and train it longer."
            ]
    return []


def _lost(report: "Report", system: str, corpus: "Report", where: str) -> list[str]:
    if report.candidates is None or system not in report.systems or system not in corpus.systems:
        return []
    among_few = report.systems[system].metrics["success@1"]
    among_many = corpus.systems[system].metrics["success@1"]
    if among_many.high >= LOST * among_few.mean:
        return []
    return [
        f"The R@1 of {system} among {report.candidates} documents of BM25, {_percent(among_few)}, is "
        f"{_percent(among_many)}{where}: the candidates hide documents that it wrongly ranks high. It can rerank, but "
        "not retrieve; train the teacher longer or with more negatives that resemble relevant documents."
    ]


def _percent(interval: "Interval") -> str:
    return f"{100 * interval.mean:.1f}"


def _difference(interval: "Interval") -> str:
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
