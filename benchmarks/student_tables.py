"""Tables of student measurements, without rows of too few seeds; `tables` writes them into the pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.results import grouped, mean_interval
from benchmarks.tasks import SEEDS, STARTS, SYSTEM, TITLES
from modeling_rabtriever.evaluation.labels import TEACHER

Row = Mapping[str, Any]
SPLIT_TITLES = {"test": "test", "test_phrasing": "unseen phrasings"}
METRICS: dict[str, Callable[[Row, str], Mapping[str, float]]] = {
    "R@1": lambda found, who: found[who],
    "MRR@10": lambda found, who: found["mrr@10"][who],
}


def student_ablation(result: Row) -> str:
    """One table per metric: students and baselines down, tasks across; the teacher on top."""
    columns = _columns(result["rows"])
    shown = {task for _, task, _, _ in columns}
    names = sorted({row["student"] for row in result["rows"] if row["task"] in shown})
    tables = []
    for metric, read in METRICS.items():
        heads = [f"{title}, {SPLIT_TITLES[split]} (n = {n:,})" for title, _, split, n in columns]
        lines = [f"| {metric} | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
        for name in ["teacher", *names]:
            cells = []
            for _, task, split, _ in columns:
                rows = _seeds(result["rows"], task, name)
                who = TEACHER if name == TEACHER else SYSTEM
                cells.append(mean_interval([read(row[split], who) for row in rows]) if rows else "")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _columns(rows: Sequence[Row]) -> list[tuple[str, str, str, int]]:
    return [
        (_title(task, here[0]), task, split, here[0][split]["n"])
        for (task,), here in grouped(rows, "task")
        for split in SPLIT_TITLES
        if split in here[0] and len({row["seed"] for row in here}) >= SEEDS
    ]


def _title(task: str, row: Row) -> str:
    generated = row.get("unlabelled")
    return f"{TITLES[task]}, {generated:,} generated queries" if generated else TITLES[task]


def _seeds(rows: Sequence[Row], task: str, name: str) -> list[Row]:
    """One row of `name` per seed, or none if seeds are missing; every row has the teacher."""
    here = [row for row in rows if row["task"] == task]
    found = {row["seed"]: row for row in here if name in ("teacher", row["student"])}
    return list(found.values()) if len(found) >= SEEDS else []


def student_budget(result: Row) -> str:
    """R@1 against the index width, and against the teacher's bill for each way of drawing candidates."""
    parts = []
    for (task, axis), rows in grouped(result["rows"], "task", "axis"):
        if len({row["seed"] for row in rows}) < SEEDS:
            continue
        values = sorted({row["value"] for row in rows})
        unit = "k" if axis == "k" else "teacher pairs per query"
        n = rows[0]["test"]["n"]
        head = f"{TITLES[task]}, test (n = {n}), R@1 by {unit}"
        lines = [f"| {head} | {' | '.join(map(str, values))} |", "|---|" + "---:|" * len(values)]
        for (policy,), here in grouped(rows, "policy"):
            cells = []
            for value in values:
                seeds = [row["test"][SYSTEM] for row in here if row["value"] == value]
                cells.append(mean_interval(seeds) if len(seeds) >= SEEDS else "")
            lines.append(f"| {policy} | {' | '.join(cells)} |")
        teachers = {row["seed"]: row["test"]["teacher"] for row in rows}
        lines += ["", f"The teacher: {mean_interval(list(teachers.values()))}, {len(teachers)} seeds."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def student_options(result: Row) -> str:
    """R@1 on dev by option, the default first."""
    parts = []
    for (task,), rows in grouped(result["rows"], "task"):
        seeds = len({row["seed"] for row in rows})
        head = f"{TITLES[task]}, dev (n = {rows[0]['dev']['n']:,}), up to {seeds} seed(s)"
        lines = [f"| {head} | R@1 | MRR@10 | seeds |", "|---|---:|---:|---:|"]
        for (option,), own in grouped(rows, "option"):
            first = mean_interval([row["dev"][SYSTEM] for row in own])
            reciprocal = mean_interval([row["dev"]["mrr@10"][SYSTEM] for row in own])
            lines.append(f"| {option} | {first} | {reciprocal} | {len(own)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def student_draws(result: Row) -> str:
    """Seconds and memory of a round's draw, by corpus size."""
    lines = ["| documents | seconds per 1,000 queries | MB beside the vectors |", "|---:|---:|---:|"]
    for row in result["rows"]:
        seconds, size = row["seconds_per_1000_queries"], row["extra_bytes"] / 1e6
        lines.append(f"| {row['documents']:,} | {seconds:.1f} | {size:.0f} |")
    return "\n".join(lines)


def student_streaming(result: Row) -> str:
    """Memory and processor time until the first step, by size."""
    phases = list(result["rows"][0]["processor_seconds"])
    heads = ["memory, GB", "with mapped files", *(f"{name}, s" for name in phases)]
    lines = [f"| documents, and as many queries | {' | '.join(heads)} |", "|---:|" + "---:|" * len(heads)]
    for row in result["rows"]:
        cells = [f"{row[name]:.2f}" for name in ("own_gb", "with_mapped_files_gb")]
        cells += [f"{row['processor_seconds'][name]:,.0f}" for name in phases]
        lines.append(f"| {row['documents']:,} | {' | '.join(cells)} |")
    first = result["rows"][0]
    return "\n".join(
        [*lines, "", f"Seconds are processor time; {first['start_gb']:.2f} GB are the libraries and models."]
    )


BILL_METRICS = {"success@1": "R@1", "success@10": "R@10", "mrr@10": "MRR@10", "ndcg@10": "nDCG@10"}


def student_equal_bill(result: Row) -> str:
    """One table per task and start: methods down; the teacher on top, ours next, the others from the best."""
    parts = []
    for (task, start), rows in grouped(result["rows"], "task", "start"):
        first, seeds = rows[0], len({row["seed"] for row in rows})
        count = f"n = {first['n']:,}, {seeds} seed{'s' if seeds > 1 else ''}"
        head = f"{TITLES[task]}, from {STARTS.get(start, start)} ({count})"
        names = [head, *BILL_METRICS.values(), "p", "teacher pairs", "labels", "seconds", "bytes"]
        lines = [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]
        by_method = {method: own for (method,), own in grouped(rows, "method")}
        others = sorted(by_method.keys() - {"teacher", "ours"}, key=lambda one: -_mean(by_method[one], "ndcg@10"))
        for method in ("teacher", "ours", *others):
            own = by_method[method]
            cells = [mean_interval([row[metric] for row in own]) for metric in BILL_METRICS]
            lines.append(f"| {_method(method, first)} | {' | '.join([*cells, *_bill(own)])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _method(method: str, row: Row) -> str:
    """The name of a method; the teacher's with its number of queries, if it ranked fewer."""
    fewer = method == "teacher" and row["teacher_n"] < row["n"]
    return f"teacher, {row['teacher_n']} queries, of what the others found" if fewer else method


def _mean(rows: Sequence[Row], metric: str) -> float:
    return sum(float(row[metric]["mean"]) for row in rows) / len(rows)


def _bill(rows: Sequence[Row]) -> list[str]:
    """The p-values of nDCG@10 by seed; pairs, labelled queries and bytes per document of one seed; mean seconds."""
    first = rows[0]
    p = ", ".join(_p_value(row["ndcg@10"]["p"]) for row in rows) if "p" in first["ndcg@10"] else ""
    if "pairs" not in first:
        return [p, "", "", "", ""]
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    labels = 0 if first["method"] in ("BM25", "as it is") else first["labelled"]
    facts = [f"{first['pairs']:,}", f"{labels:,}", f"{seconds:,.0f}", f"{first['bytes']:,}"]
    return [p, *(fact if fact != "0" else "" for fact in facts)]


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def student_cost(result: Row) -> str:
    """What is kept of the teacher against the cost of a query, and against the teacher's bill."""
    parts = []
    for (task, kind), rows in grouped(result["rows"], "task", "kind"):
        last = "ms per query" if kind == "query cost" else "teacher pairs"
        head = f"{TITLES[task]} (n = {rows[0]['n']})"
        lines = [f"| {head} | kept of R@1 | kept of nDCG@10 | {last} | seconds |", "|---|---:|---:|---:|---:|"]
        for row in rows:
            kept = [
                f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
                for found in (row["kept"]["success@1"], row["kept"]["ndcg@10"])
            ]
            cost = f"{row['ms']:.1f}" if kind == "query cost" else f"{row['pairs']:,}"
            name = STARTS.get(row["student"], row["student"])
            lines.append(f"| {name} | {' | '.join(kept)} | {cost} | {row['seconds']:,.0f} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def student_new_documents(result: Row) -> str:
    """One table per task, start, split and view: R@1 and MRR@10 on documents held out, and what is kept of R@1."""
    parts = []
    for (task, start, split, view), rows in grouped(result["rows"], "task", "start", "split", "view"):
        sizes = {row["seed"]: f"{row['n']:,}" for row in rows}
        count = f"n = {', '.join(sizes.values())}, {len(sizes)} seed{'s' if len(sizes) > 1 else ''}"
        head = f"{TITLES[task]}, from {STARTS.get(start, start)}, {split}, {view} ({count})"
        lines = [f"| {head} | R@1 | MRR@10 | kept of R@1 | p |", "|---|---:|---:|---:|---:|"]
        for (method,), own in grouped(rows, "method"):
            cells = [mean_interval([row[metric] for row in own]) for metric in ("success@1", "mrr@10")]
            kept = [row["success@1"]["kept"]["mean"] for row in own if "kept" in row["success@1"]]
            p = "" if method in ("teacher", "ours") else ", ".join(_p_value(row["success@1"]["p"]) for row in own)
            share = f"{sum(kept) / len(kept):.3f}" if kept else ""
            lines.append(f"| {method} | {' | '.join(cells)} | {share} | {p} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[Row], str]] = {
    "student_draws": student_draws,
    "student_streaming": student_streaming,
    "student_equal_bill": student_equal_bill,
    "student_corpora": student_equal_bill,
    "student_cost": student_cost,
    "student_ablation": student_ablation,
    "student_budget": student_budget,
    "student_options": student_options,
    "student_new_documents": student_new_documents,
}
