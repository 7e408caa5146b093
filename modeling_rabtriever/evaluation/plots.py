"""Plots of training and of evaluation, as PNG files: `path` is where a plot goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .metrics import Relevant, Run, relevance_mask

# Legends have a fixed corner, because matplotlib's search for the best one can take seconds, and then warns.

Log = Sequence[Mapping[str, Any]]


def training_curves(teacher_log: Log, student_log: Log, path: Path) -> None:
    """Loss and dev quality over steps, teacher and student side by side, from the `log_history` of their trainers."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curve(left, "Teacher", teacher_log, "eval_leads_group", "dev: relevant document leads its group")
    _curve(right, "Rabtriever", student_log, "eval_success@1", "dev: R@1 in the whole corpus")
    figure.savefig(path, dpi=120)


def student_against_teacher(student: Tensor, teacher: Tensor, relevant: Relevant, path: Path) -> None:
    """The teacher's log-odds `(n, m)` against the student's scores `(n, m)`, both centred per query."""
    x = (teacher - teacher.mean(1, keepdim=True)).numpy()
    y = (student - student.mean(1, keepdim=True)).numpy()
    is_relevant = relevance_mask(x.shape, relevant)
    shown = np.random.default_rng(0).random(x.shape) < 20_000 / x.size
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    panel = figure.subplots()
    for mask, colour, label in ((~is_relevant & shown, "0.65", "not relevant"), (is_relevant, "C0", "relevant")):
        panel.scatter(x[mask], y[mask], s=5, color=colour, alpha=0.5, linewidths=0, label=label)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    panel.plot(ends, ends, color="0.3", linewidth=0.8, linestyle="--")
    correlation = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    panel.set(
        xlabel="teacher: log-odds, centred per query",
        ylabel="Rabtriever: inner product, centred per query",
        title=f"{x.shape[0]} queries x {x.shape[1]} documents, Pearson r = {correlation:.3f}",
    )
    panel.legend(loc="upper left", markerscale=3, frameon=False)
    figure.savefig(path, dpi=120)


def reliability_diagram(groups: Sequence[Mapping[str, float]], error: float, path: Path) -> None:
    """Share of relevant pairs against the predicted probability, from `calibration.reliability`, and its error.

    Larger points stand for more pairs.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    panel = figure.subplots()
    largest = max(group["count"] for group in groups)
    panel.plot([0, 1], [0, 1], color="0.3", linewidth=0.8, linestyle="--")
    panel.scatter(
        [group["confidence"] for group in groups],
        [group["accuracy"] for group in groups],
        s=[10 + 200 * (group["count"] / largest) ** 0.5 for group in groups],
        color="C0",
        alpha=0.7,
        linewidths=0,
    )
    panel.set(
        xlabel="predicted probability of relevance",
        ylabel="share of relevant pairs",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        title=f"Teacher, {sum(group['count'] for group in groups):,} pairs, ECE = {error:.3f}",
    )
    figure.savefig(path, dpi=120)


def recall_curves(runs: Mapping[str, Run], relevant: Relevant, path: Path) -> None:
    """Share of queries with a relevant document among the first k, against k, one line per system."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    panel = figure.subplots()
    for name, run in runs.items():
        depth = max(map(len, run))
        firsts = [
            next((rank for rank, row in enumerate(ranking) if labels.get(row, 0) > 0), depth)
            for ranking, labels in zip(run, relevant, strict=True)
        ]
        hits = np.cumsum(np.bincount(firsts, minlength=depth + 1)[:depth]) / len(firsts)
        panel.plot(np.arange(1, depth + 1), hits, label=name, marker="o" if depth < 12 else None, markersize=3)
    panel.set(xscale="log", xlabel="k", ylabel="queries answered among the first k", ylim=(0, 1.02))
    panel.set_title(f"{len(relevant):,} queries")
    panel.legend(loc="lower right", frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


def score_histograms(scores: Mapping[str, Tensor], relevant: Relevant, path: Path) -> None:
    """Histograms of the scores `(n, m)` of relevant and other documents, centred per query, one panel per system."""
    figure = Figure(figsize=(4.4 * len(scores), 3.6), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)
    for panel, (name, matrix) in zip(panels[0], scores.items(), strict=True):
        centred = (matrix - matrix.mean(1, keepdim=True)).numpy()
        is_relevant = relevance_mask(centred.shape, relevant)
        bins = np.histogram_bin_edges(centred, 60)
        for mask, colour, label in ((~is_relevant, "0.65", "not relevant"), (is_relevant, "C0", "relevant")):
            panel.hist(centred[mask], bins, density=True, color=colour, alpha=0.6, label=label)
        panel.set(title=name, xlabel="score, centred per query", ylabel="density")
        panel.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=120)


def _curve(panel: Any, title: str, log: Log, quality: str, quality_label: str) -> None:
    losses = [(record["step"], record["loss"]) for record in log if "loss" in record]
    qualities = [(record["step"], record[quality]) for record in log if quality in record]
    panel.plot(*zip(*losses, strict=True), color="C0")
    panel.set(title=title, xlabel="step", yscale="log")
    panel.set_ylabel("training loss", color="C0")
    twin = panel.twinx()
    if qualities:
        twin.plot(*zip(*qualities, strict=True), color="C1", marker="o", markersize=3)
    twin.set(ylim=(0, 1.02))
    twin.set_ylabel(quality_label, color="C1")
