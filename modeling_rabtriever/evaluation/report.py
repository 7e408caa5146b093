"""The report on one split: metrics of every system with intervals, as an object, as JSON and as Markdown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .faithfulness import faithfulness_line
from .labels import COLUMNS, COMPARED, STUDENT, TEACHER
from .metrics import bootstrap_interval, bootstrap_ratio_interval
from .report_warnings import sampled, warnings

FIRST_STAGE = "BM25"  # its first documents are ranked if the corpus is too large


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, seed: int = 0) -> "Interval":
        """The mean of one value per query, `(n,)`, and its interval; `seed` is that of the bootstrap."""
        return cls(float(values.mean()), *bootstrap_interval(values, seed))

    @classmethod
    def of_ratio(cls, numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> "Interval":
        """The ratio of the means of two systems on the same queries, `(n,)` each, and its interval.

        Raises:
            ValueError: the denominator is 0 for every query.
        """
        low, high = bootstrap_ratio_interval(numerator, denominator, seed)
        return cls(float(numerator.mean() / denominator.mean()), low, high)

    def to_json(self) -> dict[str, float]:
        """The three numbers by name."""
        return asdict(self)

    def percent(self) -> str:
        """A table cell: the mean in percent with its interval in brackets."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


Intervals = Mapping[str, Interval]


@dataclass(frozen=True)
class SystemReport:
    """Metrics and costs of one system.

    Args:
        metrics: name, such as `ndcg@10` -> mean over queries.
        milliseconds: median time of one query, text in, scores out; `None` if not measured.
        vector_bytes: size of the corpus vectors; `None` for systems without vectors.
    """

    metrics: Intervals
    milliseconds: float | None = None
    vector_bytes: int | None = None


@dataclass(frozen=True)
class Report:
    """Results of all systems on the same queries.

    Args:
        n: number of queries.
        documents: number of documents in the corpus.
        systems: name -> its results; the first one is a random order.
        task: name of the task; empty if unknown.
        split: name of the split.
        candidates: number of first documents of BM25 that were ranked; `None` means the corpus.
        repeated: such as `test in train` -> share of the split's queries that the other split has verbatim.
        teacher_over: trivial baseline -> metric -> the teacher's value minus the baseline's, paired by query.
        student_over_teacher: metric -> the student's value minus its teacher's, paired by query.
        retention: metric -> the student's mean divided by its teacher's, paired by query; only for metrics whose
            interval for the teacher does not reach 0.
        whole: if candidates were ranked, the systems that rank the whole corpus anyway.
        sample: if candidates were ranked, all systems on a sample of queries and documents; without systems if the
            rerankers would have taken too long.
        minutes: how long such a sample would have taken.
        calibration: `ece` and the `groups` of `calibration.reliability`, of the teacher on the corpus.
        faithfulness: `scores`, as `score_faithfulness` measures them on the corpus.

    Examples:
        >>> from modeling_rabtriever.evaluation import Interval, Report, SystemReport
        >>> interval = Interval(0.5, 0.25, 0.75)
        >>> report = Report(n=8, documents=3, systems={"BM25": SystemReport({"mrr@10": interval})})
        >>> report.systems["BM25"].metrics["mrr@10"].mean
        0.5
        >>> Report.from_json(report.to_json()) == report
        True
    """

    n: int
    documents: int
    systems: Mapping[str, SystemReport]
    task: str = ""
    split: str = ""
    candidates: int | None = None
    repeated: Mapping[str, float] = field(default_factory=dict)
    teacher_over: Mapping[str, Intervals] = field(default_factory=dict)
    student_over_teacher: Intervals = field(default_factory=dict)
    retention: Intervals = field(default_factory=dict)
    whole: "Report | None" = None
    sample: "Report | None" = None
    minutes: float | None = None
    calibration: Mapping[str, Any] | None = None
    faithfulness: Mapping[str, Any] | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings, one or two sentences each."""
        return warnings(self)

    @property
    def table(self) -> str:
        """A Markdown table with a row per system, the best R@1 in bold."""
        best = max(system.metrics["success@1"].mean for system in self.systems.values())
        head = f"{self.split}: n = {self.n}, {self.documents} documents"
        lines = [
            f"| {head} | " + " | ".join([*COLUMNS.values(), "ms per query"]) + " |",
            "|---|" + "---:|" * (len(COLUMNS) + 1),
        ]
        for name, system in self.systems.items():
            cells = [system.metrics[metric].percent() for metric in COLUMNS]
            if system.metrics["success@1"].mean == best:
                cells[0] = f"**{cells[0]}**"
            timed = "" if system.milliseconds is None else f"{system.milliseconds:.2f}"
            lines.append(f"| {name} | " + " | ".join([*cells, timed]) + " |")
        return "\n".join(lines)

    def markdown(self, *more: str) -> str:
        """Table, warnings, and sentences on first stage, retention, faithfulness and repeated queries.

        Args:
            more: further sentences to append.
        """
        sentences = [_first_stage_line(self), retention_line(self)]
        if self.faithfulness is not None:
            sentences.append(faithfulness_line(self.faithfulness))
        sentences += [
            f"Leakage: {share:.1%} of the queries of {pair} verbatim." for pair, share in self.repeated.items()
        ]
        cautions = [f"**Warning.** {warning}" for warning in self.warnings]
        return "\n\n".join(filter(None, [self.table, *cautions, " ".join(filter(None, [*sentences, *more]))]))

    def to_json(self) -> dict[str, Any]:
        """The report as objects, lists, strings and numbers, as a run's JSON file holds it; `from_json` reads it."""
        stage = None if self.candidates is None else {"system": FIRST_STAGE, "documents": self.candidates}
        written: dict[str, Any] = {"task": self.task, "split": self.split, "documents": self.documents}
        written |= {"first_stage": stage, "repeated": dict(self.repeated)}
        if stage is not None:
            written |= {name: _part_to_json(part) for name, part in (("whole", self.whole), ("sample", self.sample))}
        written |= _figures_to_json(self)
        for name, found in (("calibration", self.calibration), ("faithfulness", self.faithfulness)):
            if found is not None:
                written[name] = dict(found)
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Report":
        """The report from the output of `to_json`; older files may lack some keys.

        Raises:
            ValueError: it lacks queries, documents or systems.
        """
        missing = [name for name in ("n", "documents", "systems") if name not in written]
        if missing:
            raise ValueError(f"the report lacks {', '.join(missing)}; accepted: the output of Report.to_json")
        documents, stage = written["documents"], written.get("first_stage")
        as_they_are = ("n", "documents", "task", "split", "repeated", "minutes", "calibration", "faithfulness")

        def part(name: str) -> "Report | None":
            found = written.get(name)
            return None if found is None else cls.from_json({"documents": documents, "systems": {}, **found})

        return cls(
            **{name: written[name] for name in as_they_are if name in written},
            systems={name: _system_from_json(system) for name, system in written["systems"].items()},
            candidates=None if stage is None else stage["documents"],
            teacher_over={name: _intervals(own) for name, own in written.get("teacher_over", {}).items()},
            student_over_teacher=_intervals(written.get("student_over_teacher", {})),
            retention=_intervals(written.get("retention", {})),
            whole=part("whole"),
            sample=part("sample"),
        )


def _part_to_json(part: Report | None) -> dict[str, Any] | None:
    if part is None:
        return None
    if not part.systems:
        return {"n": part.n, "documents": part.documents, "minutes": part.minutes}
    return {"documents": part.documents, **_figures_to_json(part)}


def _figures_to_json(report: Report) -> dict[str, Any]:
    written: dict[str, Any] = {"n": report.n, "systems": {}}
    for name, system in report.systems.items():
        written["systems"][name] = _written(system.metrics)
        if system.milliseconds is not None:
            times = {"milliseconds": system.milliseconds, "vector_bytes": system.vector_bytes}
            written["systems"][name] |= times
    if report.teacher_over:
        written["teacher_over"] = {name: _written(own) for name, own in report.teacher_over.items()}
    if report.student_over_teacher:
        written["student_over_teacher"] = _written(report.student_over_teacher)
    if report.retention or report.student_over_teacher:  # older runs have only the ratios
        written["retention"] = _written(report.retention)
    return written


def _written(intervals: Intervals) -> dict[str, Any]:
    return {metric: interval.to_json() for metric, interval in intervals.items()}


def _intervals(written: Mapping[str, Mapping[str, float]]) -> dict[str, Interval]:
    return {metric: Interval(**interval) for metric, interval in written.items()}


def _system_from_json(written: Mapping[str, Any]) -> SystemReport:
    about = {name: written[name] for name in ("milliseconds", "vector_bytes") if name in written}
    return SystemReport(_intervals({name: own for name, own in written.items() if name not in about}), **about)


def retention_line(report: Report) -> str:
    """One sentence on how much of the teacher's quality the student keeps; empty if the teacher has hardly any."""
    parts = [
        f"{COLUMNS[metric]} {ratio.mean:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        for metric, ratio in report.retention.items()
        if metric in COMPARED
    ]
    return f"Rabtriever keeps this share of the teacher's quality: {', '.join(parts)}." if parts else ""


def calibration_line(report: Report) -> str:
    """One sentence on the teacher's probabilities; empty if no teacher ranked the corpus."""
    if report.calibration is None:
        return ""
    error = report.calibration["ece"]
    return f"Calibration of the teacher's sigmoid over all pairs: ECE {error:.3f} (0 is perfect)."


def _first_stage_line(report: Report) -> str:
    """If only candidates were ranked: how many, and the results on the whole corpus or a sample; otherwise empty."""
    if report.candidates is None:
        return ""
    sentences = [f"Only the first {report.candidates} documents of BM25 were ranked."]
    if report.whole is not None and STUDENT in report.whole.systems:
        sentences.append(f"Among all {report.documents:,} documents: {_figures(report.whole, STUDENT)}.")
    sample = report.sample
    if sample is not None and TEACHER in report.systems:
        drawn = f"{sample.n} queries and {sampled(sample, report)}"
        if sample.systems:
            found = "; ".join(_figures(sample, name) for name in (TEACHER, STUDENT) if name in sample.systems)
            relevant = "" if sample.documents == report.documents else ", including the relevant ones"
            sentences.append(f"With {drawn}{relevant}: {found}.")
        else:
            sentences.append(
                f"The teacher was not evaluated on the corpus: {drawn} would take about {sample.minutes:.0f} minutes "
                "on this machine."
            )
    return " ".join(sentences)


def _figures(report: Report, system: str) -> str:
    metrics = report.systems[system].metrics
    return f"{system} {', '.join(f'{COLUMNS[metric]} {metrics[metric].percent()}' for metric in COMPARED)}"
