"""Run files in TREC format, so that rankings of any system can be evaluated here, and ours by any tool.

A line is `query-id Q0 document-id rank score name`, with ranks from 1 and descending scores.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from torch import Tensor

from ..files import write_text
from ..tasks.qrels import text_lines
from .metrics import Run


def check_ids(*ids: Sequence[str]) -> None:
    """Refuses ids that a run file cannot hold, because white space separates its columns.

    Raises:
        ValueError: an id is empty or contains white space.
    """
    for id_ in chain(*ids):
        if id_.split() != [id_]:
            raise ValueError(f"the id {id_!r} cannot be used in a run file; accepted: ids without white space")


def write_run(
    path: str | Path, name: str, query_ids: Sequence[str], corpus_ids: Sequence[str], run: Run, scores: Tensor
) -> None:
    """Writes the run of a system: for each of the `n` queries, the corpus rows, best first, with scores `(n, m)`.

    Raises:
        ValueError: an id is empty or contains white space.
    """
    tag = name.replace(" ", "_")
    check_ids(query_ids, corpus_ids)
    lines = []
    for query, (query_id, rows) in enumerate(zip(query_ids, run, strict=True)):
        own = scores[query, rows].tolist()
        lines += [
            f"{query_id} Q0 {corpus_ids[row]} {rank} {score!r} {tag}\n"
            for rank, (row, score) in enumerate(zip(rows, own, strict=True), start=1)
        ]
    write_text(Path(path), "".join(lines))


def read_run(path: str | Path, query_ids: Sequence[str], corpus_ids: Sequence[str]) -> Run:
    """Reads a run, and refuses a file that is not a valid ranking for each of these queries.

    Returns:
        For each query, the corpus rows, best first.

    Raises:
        ValueError: a line has another format, a score is not finite or higher than the one before it, ranks do not
            count from 1, a query or document is unknown, a query is missing, or a document occurs twice for a query.
    """
    place = {id_: row for row, id_ in enumerate(corpus_ids)}
    found: dict[str, dict[int, float]] = {id_: {} for id_ in query_ids}
    for where, query, document, rank, score in _lines(Path(path)):
        if query not in found:
            raise ValueError(f"{where} ranks for query {query!r}; accepted: the labelled queries of the split")
        if document not in place:
            raise ValueError(f"{where} names document {document!r}; accepted: documents of the corpus")
        own = found[query]
        if place[document] in own:
            raise ValueError(f"{where} names {document!r} for query {query!r} a second time; accepted: once")
        if rank != len(own) + 1:
            raise ValueError(f"{where} has rank {rank}; accepted: {len(own) + 1}, ranks in order from 1")
        if own and score > (above := next(reversed(own.values()))):
            raise ValueError(f"{where} has score {score} below {above}; accepted: scores that fall with the rank")
        own[place[document]] = score
    missing = [id_ for id_, own in found.items() if not own]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(query_ids)} queries, the first is {missing[0]!r}; accepted: a "
            "ranking for every query of the split"
        )
    return [list(own) for own in found.values()]


def write_query_values(
    path: str | Path, query_ids: Sequence[str], values: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Query-level metrics as JSON lines: `{"_id": ..., <system>: {<metric>: value}}`."""
    lines = []
    for row, query_id in enumerate(query_ids):
        own = {
            system: {name: float(found[row]) for name, found in metrics.items()} for system, metrics in values.items()
        }
        lines.append(json.dumps({"_id": query_id, **own}) + "\n")
    write_text(Path(path), "".join(lines))


def _lines(path: Path) -> Iterator[tuple[str, str, str, int, float]]:
    """Position, query, document, rank and score of each line that is not empty."""
    for where, text in text_lines(path):
        try:
            query, _, document, rank, score, _ = text.split()
            fields = query, document, int(rank), float(score)
        except ValueError:
            raise ValueError(f"{where} is {text[:200]!r}; accepted: query-id Q0 document-id rank score name") from None
        if not math.isfinite(fields[3]):
            raise ValueError(f"{where} has the score {score}; accepted: finite numbers")
        yield where, *fields


def run_names(files: Sequence[str]) -> Mapping[str, Path]:
    """Name of the system (the file name without its extension) -> file.

    Raises:
        ValueError: a file is missing, or two files have the same name.
    """
    named: dict[str, Path] = {}
    for file in map(Path, files):
        if not file.is_file():
            raise ValueError(f"{file} is not a file; accepted: run files in TREC format")
        if file.stem in named:
            raise ValueError(f"{file} and {named[file.stem]} have the same name; accepted: files with different names")
        named[file.stem] = file
    return named
