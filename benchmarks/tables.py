"""Writes the tables in the pages from `results/`, so that no published number is typed by hand.

Usage:
    python -m benchmarks.tables            # rewrites the text between <!-- results:NAME --> and <!-- /results -->

<!-- results:evaluation_sets saycan --> shows only the rows of that set.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import evaluation_tables, front_table, search_tables, serving_tables, student_tables
from benchmarks.option_page import option_page
from benchmarks.results import FOLDER, grouped, mean_interval, mean_kept
from benchmarks.tasks import PAIR, SEEDS, TITLES
from modeling_rabtriever.files import write_text

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "RESULTS.md"
DOCS = README.parent / "docs"
PAGES = (README, RESULTS, DOCS / "scale.md", DOCS / "train.md")
OPTIONS = DOCS / "options.md"  # generated as a whole
FRONT = "front_page"  # the README's table, of several result files
MARKER = re.compile(r"(<!-- results:(\w+)(?: (\w+))? -->\n).*?(<!-- /results -->)", re.DOTALL)
COLUMNS = {"success@1": "R@1", "success@3": "R@3", "mrr@10": "MRR@10"}


def render(text: str, folder: Path = FOLDER) -> str:
    """`text` with the table of the named result file in every marked place.

    Args:
        text: Markdown with `<!-- results:NAME -->` or `<!-- results:NAME SET -->`, and `<!-- /results -->`, on lines of
            their own.
        folder: of the result files.

    Raises:
        ValueError: a marker names a result without a table, or a set without rows.
        FileNotFoundError: a marker names a result that has not been measured.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name == FRONT:
            results = [_result(folder, source) for source in front_table.SOURCES]
            made = front_table.front_page(*results)
        elif name in TABLES:
            results = [_result(folder, name, match[3])]
            made = TABLES[name](results[0])
        else:
            raise ValueError(f"results:{name} has no table; accepted: {', '.join([*TABLES, FRONT])}")
        sources = [f"`{one['command']}`, {one['date']}, {one['machine'].split(',')[0]}" for one in results]
        return f"{match[1]}\n{made}\n\nSource: {'; '.join(sources)}.\n{match[4]}"

    return MARKER.sub(fill, text)


def _result(folder: Path, name: str, set_: str | None = None) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    if set_ is not None:
        result["rows"] = [row for row in result["rows"] if row["set"] == set_]
        if not result["rows"]:
            raise ValueError(f"results:{name} has no rows of {set_}; accepted: a set that was measured")
    return result


def table(name: str) -> str:
    """The table of one result for a model card.

    Raises:
        ValueError: the result has no table.
        FileNotFoundError: it has not been measured.
    """
    if name not in TABLES:
        raise ValueError(f"results is {name!r}; accepted: {', '.join(TABLES)}")
    return render(f"<!-- results:{name} -->\n<!-- /results -->")


def quickstart_household(result: Mapping[str, Any]) -> str:
    """Both full test splits of the household task, mean over seeds."""
    parts = [
        reports_table([row["full"][split] for row in result["rows"]], f"household, `{split}`")
        for split in ("test", "test_phrasing")
    ]
    return "\n\n".join(parts)


def evaluation_tasks(result: Mapping[str, Any]) -> str:
    """The test split of each task with three measured seeds, mean over seeds."""
    parts = [
        reports_table([row["test"] for row in rows], f"{TITLES[task]}, `test`")
        for (task,), rows in grouped(result["rows"], "task")
        if len(rows) >= SEEDS
    ]
    return "\n\n".join(parts)


def reports_table(reports: Sequence[Mapping[str, Any]], title: str) -> str:
    """Means over the reports of several seeds; in brackets the mean of the seeds' 95% intervals.

    Args:
        reports: outputs of `Report.to_json`, one per seed.
        title: what was measured.
    """
    head = f"{title}: n = {reports[0]['n']:,}, {reports[0]['documents']} documents, {len(reports)} seed(s)"
    lines = [f"| {head} | {' | '.join(COLUMNS.values())} |", "|---|" + "---:|" * len(COLUMNS)]
    for system in reports[0]["systems"]:
        cells = [mean_interval([report["systems"][system][metric] for report in reports]) for metric in COLUMNS]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join([*lines, *evaluation_tables.retention_lines(reports)])


def document_states(result: Mapping[str, Any]) -> str:
    """One line per task and way of training the teacher with three measured seeds, means over seeds."""
    lines = [
        "| task | teacher | R@1 dev, teacher | student | R@1 test, teacher | student | kept, test | n | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *_teacher_student_lines(result, "row")])


def _teacher_student_lines(result: Mapping[str, Any], key: str) -> list[str]:
    lines = []
    for (task, name), rows in grouped(result["rows"], "task", key):
        if len(rows) >= SEEDS:
            cells = [mean_interval([row[split][who] for row in rows]) for split in ("dev", "test") for who in PAIR]
            n = rows[0]["test"]["n"]
            lines.append(f"| {task} | {name} | {' | '.join(cells)} | {mean_kept(rows):.3f} | {n:,} | {len(rows)} |")
    return lines


def teacher_objectives(result: Mapping[str, Any]) -> str:
    """One line per task and objective, means over seeds."""
    lines = [
        "| task | objective | R@1 dev | R@1 test | MRR@10 test | ECE test | n | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (task, name), rows in grouped(result["rows"], "task", "objective"):
        dev, test = [row["dev"] for row in rows], [row["test"] for row in rows]
        wanted = ((dev, "success@1"), (test, "success@1"), (test, "mrr@10"))
        found = [mean_interval([split[metric] for split in part]) for part, metric in wanted]
        ece = np.mean([split["ece"] for split in test])
        cells = [*found, f"{ece:.3f}", f"{test[0]['n']:,}", str(len(rows))]
        lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def teacher_scoring(result: Mapping[str, Any]) -> str:
    """Pairs per second of the four ways to score, medians over blocks."""
    blocks = [row for row in result["rows"] if "block" in row]
    ways = {
        "plain": "`AutoModelForCausalLM`, padded batches, all logits",
        "sentence_transformers": "sentence-transformers `CrossEncoder` on the export",
        "ours": "`GenerativeRerankerModel.predict`",
        "cached": "`GenerativeRerankerModel.score` with cached prefixes",
    }
    settings = result["settings"]
    lines = [
        f"| the teacher, {settings['parameters'] / 1e6:.0f}M parameters, documents of {settings['prefix']} tokens, "
        f"queries of {settings['suffix']} tokens, {settings['threads']} thread(s) | pairs/s | times plain | peak GB |",
        "|---|---:|---:|---:|",
    ]
    for name, label in ways.items():
        speed = np.median([block["pairs"] / block[f"{name}_seconds"] for block in blocks])
        ratio = np.median([block["plain_seconds"] / block[f"{name}_seconds"] for block in blocks])
        peak = max(block[f"{name}_peak_gb"] for block in blocks)
        lines.append(f"| {label} | {speed:.1f} | {ratio:.2f} | {peak:.2f} |")
    prefill = np.median(
        [block["plain_seconds"] / (block["cached_seconds"] + block["prefill_seconds"]) for block in blocks]
    )
    return "\n".join([*lines, "", f"With the reading of the documents counted in: {prefill:.2f} times plain."])


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "quickstart_household": quickstart_household,
    "evaluation_tasks": evaluation_tasks,
    "teacher_scoring": teacher_scoring,
    "teacher_objectives": teacher_objectives,
    "document_states": document_states,
    **evaluation_tables.TABLES,
    **student_tables.TABLES,
    **search_tables.TABLES,
    **serving_tables.TABLES,
}

if __name__ == "__main__":
    for page in PAGES:
        write_text(page, render(page.read_text()))
    write_text(OPTIONS, option_page())
