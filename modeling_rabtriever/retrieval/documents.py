"""Documents as they come in: JSON lines from a file or a pipe, Parquet, or a data set of the Hub."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_ID_FIELDS = ("id", "_id")
_TEXT_FIELDS = ("title", "text")


@dataclass(frozen=True)
class Document:
    """A text under an id.

    Args:
        id: unique in its corpus.
        text: what the model reads; a title, if the source has one, goes before it.
        metadata: the source's other fields, for filters and results.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class BadDocumentError(ValueError):
    """A line that is no document."""


class DocumentReader:
    """Reads documents one at a time; can be iterated again unless it reads a pipe.

    A document is an object with `id` (or `_id`), `text`, perhaps `title`; all other fields are metadata. Memory holds
    one document, and a number for each id.

    Args:
        source: a `.jsonl` or `.parquet` file, `-` for JSON lines on standard input, or `hub:<data set>[:<split>]`,
            which the extra "train" reads (`datasets`).
        skip_bad: whether lines that are no document are counted in `skipped` instead of raising.
        span: the part of a file to read, one of `spans()`.

    Raises:
        ValueError: the source is none of these or does not exist; while reading: a line is broken, lacks a field or
            repeats an id, with its number.
    """

    def __init__(self, source: str | Path, skip_bad: bool = False, span: tuple[int, int] | None = None) -> None:
        self.source, self.skip_bad, self.span, self.skipped = str(source), skip_bad, span, 0
        self._rows = self._reader()

    def __iter__(self) -> Iterator[Document]:
        return (document for _, document in self._documents())

    def __len__(self) -> int:
        """Lines or rows of the source, without parsing them.

        Raises:
            TypeError: the source is a pipe or a data set that is streamed.
        """
        path = Path(self.source)
        if path.suffix == ".parquet":
            return _parquet(path).metadata.num_rows
        if not self._is_file():
            raise TypeError(f"the length of {self.source} is not known before it is read")
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())

    def spans(self, size: int) -> Iterator[tuple[int, int]]:
        """Parts of the file with `size` documents each, the last perhaps fewer, that others can read on their own.

        Raises:
            ValueError: the source is no file, or as when reading.
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
        """Documents, each with the position behind it: bytes of JSON lines, or rows."""
        self.skipped = 0
        seen: set[int] = set()  # hashes take a third of the memory of ids; a false alarm needs billions of documents
        for end, place, row in self._rows():
            try:
                document = to_document(row)
                if hash(document.id) in seen:
                    raise BadDocumentError(f"the id {document.id!r} occurs twice; accepted: unique ids")
            except BadDocumentError as error:
                if not self.skip_bad:
                    raise ValueError(f"{self.source} {place}: {error}") from error
                self.skipped += 1
                continue
            seen.add(hash(document.id))
            yield end, document

    def _reader(self) -> Callable[[], Iterable[tuple[int, str, Any]]]:
        path = Path(self.source)
        if self.source == "-":
            return lambda: _json_lines(sys.stdin.buffer, None)
        if self.source.startswith("hub:"):
            return lambda: _hub_rows(self.source)
        if not path.is_file():
            raise ValueError(
                f"{self.source} is no file; accepted: .jsonl, .parquet, - (standard input), hub:<data set>"
            )
        if path.suffix == ".parquet":
            return lambda: _parquet_rows(path, self.span)
        if path.suffix in (".jsonl", ".json", ".ndjson"):
            return lambda: _file_lines(path, self.span)
        raise ValueError(
            f"{self.source} ends in {path.suffix!r}; accepted: .jsonl, .ndjson, .json (one per line), .parquet"
        )


def to_document(row: Any) -> Document:
    """A document from an object with `id` (or `_id`), `text`, perhaps `title`, and metadata.

    Raises:
        BadDocumentError: a field is missing or blank, or `row` is what a broken line became.
    """
    if isinstance(row, BadDocumentError):
        raise row
    if not isinstance(row, dict):
        raise BadDocumentError(f"{str(row)[:60]!r} is no object; accepted: an object with id and text")
    names = [name for name in _ID_FIELDS if row.get(name) is not None]
    if not names or not str(row[names[0]]).strip():
        raise BadDocumentError("the id is missing or blank; accepted: a field id or _id")
    parts = [row.get(name) or "" for name in _TEXT_FIELDS]
    if not all(isinstance(part, str) for part in parts):
        raise BadDocumentError("title or text is no text; accepted: strings")
    text = " ".join(part.strip() for part in parts).strip()
    if not text:
        raise BadDocumentError(
            f"the document {row[names[0]]!r} has no text; accepted: a title or a text that is not blank"
        )
    rest = {name: value for name, value in row.items() if name not in (*_ID_FIELDS, *_TEXT_FIELDS)}
    nested = rest.pop("metadata", None)
    if isinstance(nested, dict):  # BEIR keeps other fields there
        rest = {**nested, **rest}
    return Document(str(row[names[0]]), text, {name: value for name, value in rest.items() if value is not None})


def _json_lines(file: BinaryIO, stop: int | None) -> Iterator[tuple[int, str, Any]]:
    position = 0 if stop is None else file.tell()
    for number, line in enumerate(file, start=1):
        position += len(line)
        if line.strip():
            try:
                yield position, f"line {number}", json.loads(line)
            except ValueError as error:  # also bytes that are no UTF-8
                yield position, f"line {number}", BadDocumentError(f"broken JSON ({error})")
        if stop is not None and position >= stop:
            return


def _file_lines(path: Path, span: tuple[int, int] | None) -> Iterator[tuple[int, str, Any]]:
    with path.open("rb") as file:
        if span is not None:
            file.seek(span[0])
        yield from _json_lines(file, None if span is None else span[1])


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file ({error})") from error


def _parquet_rows(path: Path, span: tuple[int, int] | None) -> Iterator[tuple[int, str, Any]]:
    file = _parquet(path)
    begin, end = span or (0, file.metadata.num_rows)
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > begin and first < end:
            number = first
            for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    if begin < number <= end:
                        yield number, f"row {number}", row
        first += rows


def _hub_rows(source: str) -> Iterator[tuple[int, str, Any]]:
    from datasets import load_dataset  # of the extra "train"

    _, name, *split = source.split(":")
    rows = load_dataset(name, split=split[0] if split else "train", streaming=True)
    return ((number, f"row {number}", dict(row)) for number, row in enumerate(rows, start=1))
