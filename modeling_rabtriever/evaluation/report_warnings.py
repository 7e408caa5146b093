"""What no reader of a report may miss: a teacher that did not learn, a student ahead of it, what candidates hide."""

from collections.abc import Mapping
from typing import Any

AHEAD = 1.1  # times its teacher's figure, from which a student is far ahead
LOST = 0.5  # of the figure among candidates, below which little is left of it in the corpus
_LABELS = {"success@1": "R@1", "mrr@10": "MRR@10"}


def warnings(report: Mapping[str, Any], teacher: str, student: str) -> list[str]:
    """Warnings of one split's report, a sentence or two each; none if there is nothing to warn of.

    Args:
        report: as `stages.evaluate` writes it.
        teacher: the teacher's name there.
        student: the student's.
    """
    found = [*_learned(report, teacher, ""), *_ahead(report, teacher, student, "")]
    sample = report.get("sample") or {}
    if "systems" in sample:
        part = "all" if sample["documents"] == report["documents"] else f"{sample['documents']:,} of the"
        where = f" among {part} {report['documents']:,} documents ({sample['n']} queries)"
        found += [*_learned(sample, teacher, where), *_ahead(sample, teacher, student, where)]
        found += _lost(report, teacher, sample, where)
    if report.get("whole") is not None:
        found += _lost(report, student, report["whole"], f" among all {report['documents']:,} documents")
    return found


def _learned(report: Mapping[str, Any], teacher: str, where: str) -> list[str]:
    """The teacher against the best of the trivial baselines it is not surely better than."""
    over = {name: by["mrr@10"] for name, by in report.get("teacher_over", {}).items() if by["mrr@10"]["low"] <= 0}
    if not over:
        return []
    worst = min(over, key=lambda name: over[name]["mean"])
    own, other = (_percent(report["systems"][name]["mrr@10"]["mean"]) for name in (teacher, worst))
    named = {"random": "a random order's", "label prior": "the label prior's"}.get(worst, f"{worst}'s")
    relation = "below" if over[worst]["high"] < 0 else "hardly above"
    return [
        f"The teacher's MRR@10{where}, {own}, is {relation} {named}, {other} (difference {_interval(over[worst])}): it "
        "has not learned the task, and no student can learn it from this teacher. Train it longer, start from a "
        "pretrained model, or give it more training queries."
    ]


def _ahead(report: Mapping[str, Any], teacher: str, student: str, where: str) -> list[str]:
    over = report.get("student_over_teacher", {})
    for metric, difference in over.items():
        own, its = (report["systems"][name][metric]["mean"] for name in (student, teacher))
        if difference["low"] > 0 and own > AHEAD * its:
            label = _LABELS[metric]
            return [
                f"{student}'s {label}{where}, {_percent(own)}, is far above its teacher's, {_percent(its)} "
                f"(difference {_interval(difference)}). That is no success of distillation: the teacher has not "
                "learned what the student ranks by. Look at its figures in the whole corpus, and train it longer."
            ]
    return []


def _lost(report: Mapping[str, Any], system: str, corpus: Mapping[str, Any], where: str) -> list[str]:
    if report.get("first_stage") is None or system not in report["systems"]:
        return []
    few, many = (part["systems"][system]["success@1"] for part in (report, corpus))
    if many["high"] >= LOST * few["mean"]:
        return []
    stage = report["first_stage"]
    return [
        f"The R@1 of {system} among {stage['documents']} documents of {stage['system']}, {_percent(few['mean'])}, is "
        f"{_percent(many['mean'])}{where}: the candidates hide documents that it takes for relevant. It reranks, but "
        "does not find; train the teacher longer or with more negatives that resemble relevant documents."
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(difference: Mapping[str, float]) -> str:
    mean, low, high = (f"{100 * difference[name]:+.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
