"""Tables of what students were measured at; `tables` puts them into the pages. Rows of fewer seeds are left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.results import grouped, mean_interval
from benchmarks.tasks import SEEDS, TITLES

Row = Mapping[str, Any]
SPLIT_TITLES = {"test": "test", "test_phrasing": "unseen phrasings"}
METRICS: dict[str, Callable[[Row, str], Mapping[str, float]]] = {
    "R@1": lambda found, who: found[who],
    "MRR@10": lambda found, who: found["mrr@10"][who],
}


def student_ablation(result: Row) -> str:
    """One table per metric: students down, tasks across; the teacher on top."""
    return _compared(result, "student")


def bi_encoders(result: Row) -> str:
    """The same form for what sentence-transformers trains on the teacher's backbone."""
    return _compared(result, "method")


def _compared(result: Row, key: str) -> str:
    columns = _columns(result["rows"])
    shown = {task for _, task, _, _ in columns}
    names = sorted({row[key] for row in result["rows"] if row["task"] in shown})
    tables = []
    for metric, read in METRICS.items():
        heads = [f"{title}, {SPLIT_TITLES[split]} (n = {n:,})" for title, _, split, n in columns]
        lines = [f"| {metric} | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
        for name in ["teacher", *names]:
            cells = []
            for _, task, split, _ in columns:
                rows = _seeds([row for row in result["rows"] if row["task"] == task], key, name)
                who = "teacher" if name == "teacher" else "Rabtriever"
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
    generated = row.get("unjudged")
    return f"{TITLES[task]}, {generated:,} generated queries" if generated else TITLES[task]


def _seeds(rows: Sequence[Row], key: str, name: str) -> list[Row]:
    """One row per seed of what `name` is measured at, or none if seeds are missing; any row knows the teacher."""
    found = {row["seed"]: row for row in rows if name in ("teacher", row[key])}
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
                seeds = [row["test"]["Rabtriever"] for row in here if row["value"] == value]
                cells.append(mean_interval(seeds) if len(seeds) >= SEEDS else "")
            lines.append(f"| {policy} | {' | '.join(cells)} |")
        teachers = {row["seed"]: row["test"]["teacher"] for row in rows}
        lines += ["", f"The teacher: {mean_interval(list(teachers.values()))}, {len(teachers)} seeds."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def student_transfer(result: Row) -> str:
    """R@1 on queries whose answers were held out of distillation."""
    lines = [
        "| task | teacher | student | among the held out: teacher | student | kept "
        "| full corpus: teacher | student | kept | n | seeds |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (task, teacher, name), rows in grouped(result["rows"], "task", "teacher", "student"):
        if len(rows) < SEEDS:
            continue
        cells = []
        for view in ("unseen", "full"):
            cells += [mean_interval([row[view][who] for row in rows]) for who in ("teacher", "Rabtriever")]
            kept = [row[view]["Rabtriever"]["mean"] / row[view]["teacher"]["mean"] for row in rows]
            cells.append(f"{sum(kept) / len(kept):.3f}")
        n = ", ".join(str(row["unseen"]["n"]) for row in rows)
        lines.append(f"| {TITLES[task]} | {teacher} | {name} | {' | '.join(cells)} | {n} | {len(rows)} |")
    return "\n".join(lines)


def student_draws(result: Row) -> str:
    """Seconds and memory of a round's draw, by corpus size."""
    lines = ["| documents | seconds per 1,000 queries | MB beside the vectors |", "|---:|---:|---:|"]
    for row in result["rows"]:
        seconds, size = row["seconds_per_1000_queries"], row["extra_bytes"] / 1e6
        lines.append(f"| {row['documents']:,} | {seconds:.1f} | {size:.0f} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Row], str]] = {
    "student_draws": student_draws,
    "student_ablation": student_ablation,
    "bi_encoders": bi_encoders,
    "student_budget": student_budget,
    "student_transfer": student_transfer,
}
