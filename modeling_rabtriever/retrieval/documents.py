"""Reads documents: JSON lines from a file or a pipe, Parquet, or a data set of the Hub.

Encoding, search, training, evaluation and the page all read their corpus and queries through this module.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .distinct import SeenTexts
from .json_lines import numbered_lines, parse_line

JSON_LINES = (".jsonl", ".ndjson", ".json")
FORMATS = (*JSON_LINES, ".parquet")
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


class BadDocumentError(ValueError):
    """A line that is not a document."""


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
            _check_file(Path(self.source))

    def __iter__(self) -> Iterator[Document]:
        return (document for _, document in self._documents())

    def __len__(self) -> int:
        """Lines or rows of the source, without parsing them.

        Raises:
            TypeError: the source is a pipe or a data set of the Hub.
        """
        path = Path(self.source)
        if path.suffix == ".parquet":
            return _parquet(path).metadata.num_rows
        if not self._is_file():
            raise TypeError(f"the length of {self.source} is not known before it is read")
        with path.open("rb") as file:
            return sum(1 for _ in numbered_lines(file))

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
                    raise BadDocumentError(f"the id {document.id!r} occurs twice; accepted: unique ids")
            except BadDocumentError as error:
                if not self.skip_bad:
                    raise ValueError(f"{self.source} {place}: {error}") from None
                self.skipped += 1
                continue
            yield end, document

    def _rows(self) -> Iterator[tuple[int, str, Any]]:
        if self.source == "-":
            return _json_rows(sys.stdin.buffer)
        if self._is_file():
            return file_rows(Path(self.source), self.span)
        return _hub_rows(self.source)


def document_text(title: str | None, text: str | None) -> str:
    """The text of a document that a model reads: the title, if there is one, a space, and the text."""
    return f"{(title or '').strip()} {(text or '').strip()}".strip()


def to_document(row: Any) -> Document:
    """A document from an object with `id` (or `_id`), `text`, perhaps `title`, and metadata.

    Raises:
        BadDocumentError: a field is missing, blank or of another type, or `row` is what a broken line became.
    """
    if isinstance(row, BadDocumentError):
        raise row
    if not isinstance(row, dict):
        raise BadDocumentError(f"{str(row)[:60]!r} is not an object; accepted: an object with id and text")
    id_ = row_id(row)
    if id_ is None or not id_.strip():
        raise BadDocumentError("the id is missing or blank; accepted: a field id or _id")
    title, body = row.get("title"), row.get("text")
    if not isinstance(title, str | None) or not isinstance(body, str | None):
        raise BadDocumentError("title or text is not a string; accepted: strings")
    text = document_text(title, body)
    if not text:
        raise BadDocumentError(f"the document {id_!r} has no text; accepted: a title or a text that is not blank")
    rest = {name: value for name, value in row.items() if name not in (*_ID_FIELDS, *_TEXT_FIELDS)}
    if isinstance(rest.get("metadata"), dict):  # BEIR's place for other fields
        rest = {**rest.pop("metadata"), **rest}
    return Document(id_, text, {name: value for name, value in rest.items() if value is not None})


def id_text(value: Any) -> str:
    """An id as text: a string as it is, a number as JSON writes it.

    Raises:
        BadDocumentError: it is something else.
    """
    if type(value) in (int, float):
        return str(value)
    if not isinstance(value, str):
        raise BadDocumentError(f"the id is {str(value)[:60]}; accepted: a string or a number")
    return value


def row_id(row: dict[str, Any]) -> str | None:
    """The id of an object, `id` or `_id`, as text; `None` if it has none.

    Raises:
        BadDocumentError: it is not a string or a number, or there are two.
    """
    found = {name: id_text(row[name]) for name in _ID_FIELDS if row.get(name) is not None}
    if len(set(found.values())) > 1:
        raise BadDocumentError(f"id is {found['id']!r} and _id is {found['_id']!r}; accepted: one id")
    return next(iter(found.values()), None)


def file_rows(path: Path, span: tuple[int, int] | None = None) -> Iterator[tuple[int, str, Any]]:
    """The rows of a `.jsonl` or `.parquet` file.

    Args:
        path: the file.
        span: the part to read, in bytes or rows.

    Yields:
        The position after the row, as spans count; its place, for messages; the row, or a `BadDocumentError` if it
        cannot be read.

    Raises:
        ValueError: it is not such a file, or a Parquet file is broken.
    """
    _check_file(path)
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, span)
        return
    begin, stop = span or (0, None)
    with path.open("rb") as file:
        file.seek(begin)
        yield from _json_rows(file, begin, stop)


def _check_file(path: Path) -> None:
    if not os.path.isfile(path):  # false, not an error, if the name is too long
        raise ValueError(f"{path} is not a file; accepted: .jsonl, .parquet, - (standard input), hub:<data set>")
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path} ends in {path.suffix!r}; accepted: .jsonl, .ndjson, .json (one per line), .parquet; not compressed"
        )


def _json_rows(file: Iterable[bytes], begin: int = 0, stop: int | None = None) -> Iterator[tuple[int, str, Any]]:
    line_begin = begin
    for number, end, line in numbered_lines(file, begin):
        if stop is not None and line_begin >= stop:
            return
        place = f"line {number}" if begin == 0 else f"line {number} from byte {begin}"
        try:
            yield end, place, parse_line(line)
        except ValueError as error:
            yield end, place, BadDocumentError(str(error))
        line_begin = end


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path.absolute(), page_checksum_verification=True)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); accepted: a whole one") from error


def _parquet_rows(path: Path, span: tuple[int, int] | None) -> Iterator[tuple[int, str, Any]]:
    from pyarrow import ArrowException

    file = _parquet(path)
    begin, end = span or (0, file.metadata.num_rows)
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > begin and first < end:
            number = first
            try:
                for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
                    for row in _batch_rows(batch):
                        number += 1
                        if begin < number <= end:
                            yield number, f"row {number}", row
            except (ArrowException, OSError) as error:
                raise ValueError(f"{path} is broken after row {number} ({error}); accepted: a whole file") from error
        first += rows


def _batch_rows(batch: Any) -> Iterable[Any]:
    try:
        return map(_checked_row, batch.to_pylist())
    except (ValueError, OverflowError):  # some row holds invalid UTF-8 or a date that Python cannot hold: find it
        return (_single_row(batch.slice(place, 1)) for place in range(batch.num_rows))


def _single_row(batch: Any) -> Any:
    try:
        return _checked_row(batch.to_pylist()[0])
    except (ValueError, OverflowError) as error:
        return BadDocumentError(f"a value cannot be read ({error})")


def _checked_row(row: dict[str, Any]) -> Any:
    try:
        return _without_nan(row)
    except BadDocumentError as error:
        return error


def _without_nan(value: Any) -> Any:
    """The value with None for NaN, which tables use for a missing number."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise BadDocumentError(f"a number is {value}; accepted: finite numbers")
    return value


def _hub_rows(source: str) -> Iterator[tuple[int, str, Any]]:
    from .hub_files import HubDataSet

    name, _, part = source.removeprefix("hub:").partition(":")
    data_set = HubDataSet(name)
    for path in data_set.part(part or "train"):
        for end, place, row in file_rows(path):
            yield end, f"{path.relative_to(data_set.folder).as_posix()} {place}", row
