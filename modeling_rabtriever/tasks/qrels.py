"""Reads relevance judgements (qrels): BEIR's three columns, TREC's four, or rows of a data set of the Hub."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..retrieval.documents import id_text
from ..retrieval.json_lines import decode_line, numbered_lines
from ..retrieval.rows import FORMATS, BadRowError, file_rows

TSV = ".tsv"
QRELS_FORMATS = (*FORMATS, TSV)
HEADER = ("query-id", "corpus-id", "score")
ACCEPTED = (
    "accepted: query-id, corpus-id and score, separated by tabs or spaces, with or without a header of these names; or "
    "TREC's four columns, query 0 document grade"
)
_GRADE = re.compile(r"([+-]?[0-9]{1,9})(?:\.0*)?")


@dataclass(frozen=True)
class Judgement:
    """How relevant a document is for a query.

    Args:
        place: file and line, for messages.
        query_id: of the query.
        corpus_id: of the document.
        grade: above 0 if it is relevant.
    """

    place: str
    query_id: str
    corpus_id: str
    grade: int


def read_qrels(path: Path) -> Iterator[Judgement]:
    """The judgements of a text file.

    Columns are separated by tabs, or by spaces if the first line has no tab. Ids are not changed.

    Raises:
        ValueError: a line has another number of columns than the first, a grade is not a whole number, the header has
            other names, or a line is not UTF-8. The message gives file and line.
    """
    blanks, names = False, None
    for place, text in text_lines(path):
        if names is None:
            blanks = "\t" not in text
        fields = text.split() if blanks else text.split("\t")
        if names is None:
            names = _columns(place, text, fields)
            if names == tuple(fields):
                continue
        if len(fields) != len(names):
            raise ValueError(f"{place} is {text[:80]!r}, {len(fields)} columns after {len(names)}; {ACCEPTED}")
        row = dict(zip(names, fields, strict=True))
        if row.get("iteration", "0") not in ("0", "Q0"):
            raise ValueError(f"{place} is {text[:80]!r}; {ACCEPTED}")
        yield _judgement(place, row)


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place, for messages, and text of each line that is not empty.

    Raises:
        ValueError: a line is not UTF-8. The message gives file and line.
    """
    with path.open("rb") as file:
        for number, _, line in numbered_lines(file):
            place = f"{path} line {number}"
            try:
                text = decode_line(line)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            yield place, text


def read_rows(paths: Sequence[Path], folder: Path) -> Iterator[Judgement]:
    """The judgements of a data set's files: rows with `query-id`, `corpus-id` and `score`, or text as in `read_qrels`.

    Messages name files relative to `folder`.

    Raises:
        ValueError: a row cannot be read, lacks a field, or its grade is not a whole number. The message gives file and
            row.
    """
    for path in paths:
        if path.suffix == TSV:
            yield from read_qrels(path)
            continue
        for _, where, row in file_rows(path):
            place = f"{path.relative_to(folder).as_posix()} {where}"
            if isinstance(row, BadRowError):
                raise ValueError(f"{place}: {row}")
            if not isinstance(row, dict) or any(row.get(name) is None for name in HEADER):
                raise ValueError(f"{place} is {str(row)[:80]}; accepted: an object with {', '.join(HEADER)}")
            yield _judgement(place, row)


def _columns(place: str, text: str, fields: list[str]) -> tuple[str, ...]:
    """Names of the columns, from the first line, which may be a header."""
    if sorted(fields) == sorted(HEADER):
        return tuple(fields)
    if len(fields) not in (3, 4):
        raise ValueError(f"{place} is {text[:80]!r}; {ACCEPTED}")
    if re.search("[0-9]", fields[-1]) is None:
        raise ValueError(f"{place} has the header {text[:80]!r}; {ACCEPTED}")
    return HEADER if len(fields) == 3 else ("query-id", "iteration", "corpus-id", "score")


def _judgement(place: str, row: dict[str, Any]) -> Judgement:
    try:
        query_id, corpus_id = id_text(row["query-id"]), id_text(row["corpus-id"])
    except BadRowError as error:
        raise ValueError(f"{place}: {error}") from None
    score = row["score"]
    grade = None if isinstance(score, bool) else _GRADE.fullmatch(str(score).strip())
    if grade is None:
        raise ValueError(f"{place} has the score {str(score)[:40]!r}; accepted: whole numbers, above 0 for relevant")
    return Judgement(place, query_id, corpus_id, int(grade[1]))
