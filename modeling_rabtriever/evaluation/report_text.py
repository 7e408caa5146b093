"""A report as Markdown: the table, warnings, and one or two sentences on each other result."""

from typing import TYPE_CHECKING

from .faithfulness import faithfulness_line
from .labels import COLUMNS, COMPARED, STUDENT, TEACHER

if TYPE_CHECKING:
    from .report import Interval, Report


def table(report: "Report") -> str:
    """The report as a Markdown table, best R@1 in bold."""
    best = max(system.metrics["success@1"].mean for system in report.systems.values())
    head = f"{report.split}: n = {report.n}, {report.documents} documents"
    lines = [
        f"| {head} | " + " | ".join([*COLUMNS.values(), "ms per query"]) + " |",
        "|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for name, system in report.systems.items():
        cells = [percent(system.metrics[metric]) for metric in COLUMNS]
        if system.metrics["success@1"].mean == best:
            cells[0] = f"**{cells[0]}**"
        timed = "" if system.milliseconds is None else f"{system.milliseconds:.2f}"
        lines.append(f"| {name} | " + " | ".join([*cells, timed]) + " |")
    return "\n".join(lines)


def markdown(report: "Report", *more: str) -> str:
    """A split's table, warnings, and sentences on its first stage, the student's faithfulness and repeated queries.

    Args:
        report: on one split.
        more: further sentences to append.
    """
    sentences = [first_stage_line(report), retention_line(report)]
    if report.faithfulness is not None:
        sentences.append(faithfulness_line(report.faithfulness))
    sentences += [f"Leakage: {share:.1%} of the queries of {pair} verbatim." for pair, share in report.repeated.items()]
    cautions = [f"**Warning.** {warning}" for warning in report.warnings]
    paragraphs = [table(report), *cautions, " ".join(filter(None, [*sentences, *more]))]
    return "\n\n".join(filter(None, paragraphs))


def first_stage_line(report: "Report") -> str:
    """If only candidates were ranked: how many, and the results on the whole corpus or a sample; otherwise empty."""
    if report.candidates is None:
        return ""
    sentences = [f"Only the first {report.candidates} documents of BM25 were ranked."]
    if report.whole is not None and STUDENT in report.whole.systems:
        sentences.append(f"Among all {report.documents:,} documents: {_figures(report.whole, STUDENT)}.")
    sample = report.sample
    if sample is not None and TEACHER in report.systems:
        every = sample.documents == report.documents
        part = "all" if every else f"{sample.documents:,} of the"
        drawn = f"{sample.n} queries and {part} {report.documents:,} documents"
        if sample.systems:
            found = "; ".join(_figures(sample, name) for name in (TEACHER, STUDENT) if name in sample.systems)
            relevant = "" if every else ", including the relevant ones"
            sentences.append(f"With {drawn}{relevant}: {found}.")
        else:
            sentences.append(
                f"The teacher was not evaluated on the corpus: {drawn} would take about {sample.minutes:.0f} minutes "
                "on this machine."
            )
    return " ".join(sentences)


def retention_line(report: "Report") -> str:
    """One sentence on how much of the teacher's quality the student keeps; empty if the teacher has hardly any."""
    parts = [
        f"{COLUMNS[metric]} {ratio.mean:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        for metric, ratio in report.retention.items()
        if metric in COMPARED
    ]
    return f"Rabtriever keeps this share of the teacher's quality: {', '.join(parts)}." if parts else ""


def calibration_line(report: "Report") -> str:
    """One sentence on the teacher's probabilities; empty if no teacher ranked the corpus."""
    if report.calibration is None:
        return ""
    error = report.calibration["ece"]
    return f"Calibration of the teacher's sigmoid over all pairs: ECE {error:.3f} (0 is perfect)."


def percent(interval: "Interval") -> str:
    """A table cell: the mean in percent with its interval in brackets."""
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _figures(report: "Report", system: str) -> str:
    metrics = report.systems[system].metrics
    return f"{system} {', '.join(f'{COLUMNS[metric]} {percent(metrics[metric])}' for metric in COMPARED)}"
