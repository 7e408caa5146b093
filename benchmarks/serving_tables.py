"""The table of the engines that serve exports; `tables` writes it into the pages."""

from collections.abc import Callable, Mapping
from typing import Any

_WHAT = {"query": "query tower", "document": "document tower", "pairs": "cross-encoder"}


def serving_engines(result: Mapping[str, Any]) -> str:
    """One line per engine and exported folder."""
    lines = ["| engine | folder | texts answered | largest difference | order kept |", "|---|---|---:|---:|---:|"]
    for row in result["rows"]:
        engine = f"{row['engine']} ({row['version']})" if row["version"] else row["engine"]
        if row["model"] is None:
            lines.append(f"| {engine} | not run: {row['why']} | | | |")
            continue
        folder = f"{row['model']}, {_WHAT[row['tower']]}"
        if row.get("difference") is None:
            lines.append(f"| {engine} | {folder}: {row['why']} | | | |")
            continue
        order = f"{row['order']:.2f}"
        lines.append(
            f"| {engine} | {folder} | {row['answered']} of {row['texts']} | {row['difference']:.0e} | {order} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"serving_engines": serving_engines}
