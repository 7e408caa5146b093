"""Loads tasks by name, folder or Hub id, and checks that their queries do not leak labels."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..yaml_mapping import read_mapping
from .beir import RetrievalTask, load_beir, load_hub
from .texts import Texts, hashes

NAMED = Path(__file__).with_suffix(".yaml")
DATA_FOLDER = "RABTRIEVER_DATA"
TAG = re.compile(r"\[([^\[\]\n]+)\]")
REPEATED_SHARE = 0.05  # of a split's queries that may also be in another split; greetings are 0.022 of ESConv's


@dataclass(frozen=True)
class NamedTask:
    """What `named.yaml` says of a task."""

    title: str
    instruction: str
    document_template: str = "Document: {document}\n"
    query_template: str = "Query: {query}\n{instruction}"
    hub: str | None = None
    max_lines: int | None = None
    labels: str | None = None

    def prepare(self, query: str) -> str:
        """The query as a model reads it: without label tags, and only its last `max_lines` lines."""
        if self.labels is not None:
            query = re.sub(rf" *{self.labels} *", " ", query)
        lines = [line.strip() for line in query.strip().split("\n")]
        if self.max_lines is not None:
            lines = lines[-self.max_lines :]
        return "\n".join(lines)


def named_tasks() -> dict[str, NamedTask]:
    """All tasks of `named.yaml`, by name.

    Examples:
        >>> from modeling_rabtriever.tasks import named_tasks
        >>> assert "saycan" in named_tasks()
    """
    return {name: NamedTask(**about) for name, about in read_mapping(NAMED, "a mapping of name -> task").items()}


def load_task(source: str | Path, skip_bad: bool = False) -> RetrievalTask:
    """Loads a task, checks it for leakage, and prints what was left out of it.

    Args:
        source: a folder in BEIR layout, `hub:<data set>` in BEIR layout on the Hub, or a name of `named.yaml`.
        skip_bad: whether to leave out bad lines, and judgements of an absent document or query.

    Raises:
        ValueError: `source` is none of these, the data is malformed (`load_beir`), or it leaks (`check_leakage`,
            `check_tags`).

    Examples:
        >>> from modeling_rabtriever.tasks import load_task
        >>> task = load_task("path/to/folder")
        >>> sorted(task.splits)
        ['dev', 'test', 'train']
    """
    known = named_tasks()
    if Path(source).is_dir():
        task = load_beir(source, skip_bad)
    elif str(source).startswith("hub:"):
        task = load_hub(str(source).removeprefix("hub:"), skip_bad)
    elif str(source) in known:
        task = _prepared(_named_source(str(source), known[str(source)], skip_bad), known[str(source)])
    else:
        raise ValueError(
            f"{source} is not a task; accepted: a folder in BEIR layout, hub:<data set>, or one of {', '.join(known)}"
        )
    check_leakage(task)
    check_tags(task)
    if task.left_out:
        print(f"{task.name}: left out " + ", ".join(f"{what} ({count})" for what, count in task.left_out.items()))
    return task


def check_leakage(task: RetrievalTask) -> dict[str, float]:
    """Looks for queries whose text is in two splits.

    Short texts recur in honest data ("Seeker: Hello"), so up to a twentieth of a split is accepted, and reported.

    Returns:
        "<split> in <other split>" -> share of the first split's queries, if there are any.

    Raises:
        ValueError: more than `REPEATED_SHARE` of a split's queries are also in another split.
    """
    texts = {name: hashes(split.queries) for name, split in task.splits.items()}
    shares = {}
    for name, split in task.splits.items():
        for other, seen in texts.items():
            repeated = np.flatnonzero(np.isin(texts[name], seen)) if other != name else np.empty(0, np.int64)
            if not repeated.size:
                continue
            share = repeated.size / len(split)
            shares[f"{name} in {other}"] = share
            if share > REPEATED_SHARE:
                raise ValueError(
                    f"{task.name}: {repeated.size} of {len(split)} queries of {name} are also in {other}, such as "
                    f"{split.queries[int(repeated[0])]!r}; accepted: at most {REPEATED_SHARE:.0%}, since a score would "
                    "measure memory"
                )
    return shares


def check_tags(task: RetrievalTask) -> None:
    """Looks for queries that name a document in square brackets, like annotated chats do ("[Question]").

    A document's name is its text up to the first colon, full stop or line break; case does not matter.

    Raises:
        ValueError: more than `REPEATED_SHARE` of a split's queries name one.
    """
    tagged = {name: list(_tagged(split.queries)) for name, split in task.splits.items()}
    tags = {tag for found in tagged.values() for _, own in found for tag in own}
    if not tags:
        return  # a corpus may be large, and most queries have no brackets
    firsts = (re.split(r"[:.\n]", text, maxsplit=1)[0].strip().lower() for text in task.corpus)
    names = {name for name in firsts if name in tags}
    for split in task.splits.values():
        rows = [row for row, own in tagged[split.name] if own & names]
        if len(rows) > REPEATED_SHARE * len(split):
            raise ValueError(
                f"{task.name}: {len(rows)} of {len(split)} queries of {split.name} name a document in square "
                f"brackets, such as {split.queries[rows[0]]!r}; accepted: at most {REPEATED_SHARE:.0%}, since a score "
                "would measure how well a model reads labels"
            )


def _tagged(queries: Sequence[str]) -> Iterator[tuple[int, set[str]]]:
    """Rows of the queries that have something in square brackets, and what."""
    for row, query in enumerate(queries):
        if "[" in query and (own := {tag.strip().lower() for tag in TAG.findall(query)}):
            yield row, own


def _named_source(name: str, about: NamedTask, skip_bad: bool) -> RetrievalTask:
    folder = Path(os.environ.get(DATA_FOLDER, "data")) / name
    if folder.is_dir():
        return load_beir(folder, skip_bad)
    if about.hub is not None:
        return replace(load_hub(about.hub, skip_bad), name=name)
    raise ValueError(
        f"{about.title} is not on the Hub in BEIR layout, and {folder} is not a folder; accepted: that folder in BEIR "
        f"layout, or {DATA_FOLDER} set to its parent folder"
    )


def _prepared(task: RetrievalTask, about: NamedTask) -> RetrievalTask:
    splits = {
        name: replace(split, queries=Texts(map(about.prepare, split.queries)).plain())
        for name, split in task.splits.items()
    }
    return replace(task, splits=splits)
