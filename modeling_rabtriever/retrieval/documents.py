"""Reads documents: JSON lines from a file or a pipe, Parquet, or a data set of the Hub.

Encoding, search, training, evaluation and the page all read their corpus and queries through this module.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .distinct import SeenTexts
from .hub_files import HubDataSet
from .rows import BadRowError, check_file, file_length, file_rows, json_rows

_ID_FIELDS = ("id", "_id")
_TEXT_FIELDS = ("title", "text")


@dataclass(frozen=True)
class Document:
    """A text with an id.

    Args:
        id: unique in its corpus.
        text: what the model reads; it begins with the title, if the source has one.
        metadata: the source's other fields, for filters and results.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class DocumentReader:
    """Reads documents one at a time. It can be iterated again unless it reads a pipe.

    A document is an object with `id` (or `_id`), `text` and perhaps `title`; all other fields are metadata. Memory
    holds one document and 8 bytes per id.

    Args:
        source: a `.jsonl` or `.parquet` file, `-` for JSON lines on standard input, or `hub:<data set>[:<part>]`,
            which needs the extra "train" (`datasets`). The part is a split, default `train`, or a configuration, such
            as `corpus`.
        skip_bad: whether to skip lines that are not documents and count them in `skipped`, instead of raising.
        span: the part of a file to read, one of `spans()`.

    Raises:
        ValueError: the source is none of these or does not exist. While reading: a line is broken, lacks a field or
            repeats an id (the message gives its number), or a Parquet file or data set cannot be read.

    Examples:
        >>> from modeling_rabtriever.retrieval import DocumentReader
        >>> reader = DocumentReader("runs/household/data/household/corpus.jsonl")
        >>> len(reader), next(iter(reader)).text
        (408, 'bring the alarm to the kitchen')
    """

    def __init__(self, source: str | Path, skip_bad: bool = False, span: tuple[int, int] | None = None) -> None:
        self.source, self.skip_bad, self.span, self.skipped = str(source), skip_bad, span, 0
        if self._is_file():
            check_file(Path(self.source))

    def __iter__(self) -> Iterator[Document]:
        return (document for _, document in self._documents())

    def __len__(self) -> int:
        """Lines or rows of the source, without parsing them.

        Raises:
            TypeError: the source is a pipe or a data set of the Hub.
        """
        if not self._is_file():
            raise TypeError(f"the length of {self.source} is not known before it is read")
        return file_length(Path(self.source))

    def spans(self, size: int) -> Iterator[tuple[int, int]]:
        """Parts of the file with `size` documents each, the last perhaps fewer, that can be read independently.

        Raises:
            ValueError: the source is not a file, or as when reading.
        """
        if not self._is_file():
            raise ValueError(f"{self.source} cannot be read in parts; accepted: a .jsonl or .parquet file")
        begin = end = held = 0
        for end, _ in self._documents():
            held += 1
            if held == size:
                yield begin, end
                begin, held = end, 0
        if held:
            yield begin, end

    def _is_file(self) -> bool:
        return self.source != "-" and not self.source.startswith("hub:")

    def _documents(self) -> Iterator[tuple[int, Document]]:
        """Documents, each with the position after it: bytes of JSON lines, or rows."""
        self.skipped = 0
        seen = SeenTexts()
        for end, place, row in self._rows():
            try:
                document = to_document(row)
                if not seen.add(document.id):
                    raise BadRowError(f"the id {document.id!r} occurs twice; accepted: unique ids")
            except BadRowError as error:
                if not self.skip_bad:
                    raise ValueError(f"{self.source} {place}: {error}") from None
                self.skipped += 1
                continue
            yield end, document

    def _rows(self) -> Iterator[tuple[int, str, Any]]:
        if self.source == "-":
            return json_rows(sys.stdin.buffer)
        if self._is_file():
            return file_rows(Path(self.source), self.span)
        return _hub_rows(self.source)


def document_text(title: str | None, text: str | None) -> str:
    """The text of a document that a model reads: the title, if there is one, a space, and the text."""
    return f"{(title or '').strip()} {(text or '').strip()}".strip()


def to_document(row: Any) -> Document:
    """A document from an object with `id` (or `_id`), `text`, perhaps `title`, and metadata.

    Raises:
        BadRowError: a field is missing, blank or of another type, or `row` is what a broken line became.
    """
    if isinstance(row, BadRowError):
        raise row
    if not isinstance(row, dict):
        raise BadRowError(f"{str(row)[:60]!r} is not an object; accepted: an object with id and text")
    id_ = row_id(row)
    if id_ is None or not id_.strip():
        raise BadRowError("the id is missing or blank; accepted: a field id or _id")
    title, body = row.get("title"), row.get("text")
    if not isinstance(title, str | None) or not isinstance(body, str | None):
        raise BadRowError("title or text is not a string; accepted: strings")
    text = document_text(title, body)
    if not text:
        raise BadRowError(f"the document {id_!r} has no text; accepted: a title or a text that is not blank")
    rest = {name: value for name, value in row.items() if name not in (*_ID_FIELDS, *_TEXT_FIELDS)}
    if isinstance(rest.get("metadata"), dict):  # BEIR's place for other fields
        rest = {**rest.pop("metadata"), **rest}
    return Document(id_, text, {name: value for name, value in rest.items() if value is not None})


def id_text(value: Any) -> str:
    """An id as text: a string as it is, a number as JSON writes it.

    Raises:
        BadRowError: it is something else.
    """
    if type(value) in (int, float):
        return str(value)
    if not isinstance(value, str):
        raise BadRowError(f"the id is {str(value)[:60]}; accepted: a string or a number")
    return value


def row_id(row: dict[str, Any]) -> str | None:
    """The id of an object, `id` or `_id`, as text; `None` if it has none.

    Raises:
        BadRowError: it is not a string or a number, or there are two.
    """
    found = {name: id_text(row[name]) for name in _ID_FIELDS if row.get(name) is not None}
    if len(set(found.values())) > 1:
        raise BadRowError(f"id is {found['id']!r} and _id is {found['_id']!r}; accepted: one id")
    return next(iter(found.values()), None)


def _hub_rows(source: str) -> Iterator[tuple[int, str, Any]]:
    name, _, part = source.removeprefix("hub:").partition(":")
    data_set = HubDataSet(name)
    for path in data_set.part(part or "train"):
        for end, place, row in file_rows(path):
            yield end, f"{path.relative_to(data_set.folder).as_posix()} {place}", row
