"""The table of the engines that serve exports; `tables` writes it into the pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.results import grouped

_WHAT = {"query": "query tower", "document": "document tower", "pairs": "cross-encoder"}
_HEAD = "| engine | folder | of | answered | largest difference | order kept |\n|---|---|---|---:|---:|---:|"


def serving_engines(result: Mapping[str, Any]) -> str:
    """One line per engine and kind of folder, the worst over the models; those without numbers have their own."""
    lines = [_HEAD]
    for (engine, tower), rows in grouped(result["rows"], "engine", "tower"):
        name = f"{engine} ({rows[0]['version']})" if rows[0]["version"] else engine
        measured = [row for row in rows if row.get("difference") is not None]
        if measured:
            answered = f"{_sum(measured, 'answered')} of {_sum(measured, 'texts')}"
            worst = f"{max(row['difference'] for row in measured):.0e} | {min(row['order'] for row in measured):.2f}"
            lines.append(f"| {name} | {_what(tower)} | {_models(measured)} | {answered} | {worst} |")
        without = [row for row in rows if row.get("difference") is None]
        for (why,), alike in grouped(without, "why"):
            lines.append(f"| {name} | {_what(tower)} | {_models(alike)} | not served: {why} | | |")
    return "\n".join(lines)


def _what(tower: str | None) -> str:
    """The kind of folder; of a served teacher, its answers."""
    return _WHAT.get(tower or "", f"teacher, answers {tower}" if tower else "")


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(row[key] for row in rows)


def _models(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(row["model"] or "" for row in rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"serving_engines": serving_engines}
