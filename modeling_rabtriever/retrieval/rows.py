"""Rows of JSON lines and of Parquet files, which documents, queries and judgements are read from."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .json_lines import numbered_lines, parse_line

JSON_LINES = (".jsonl", ".ndjson", ".json")
FORMATS = (*JSON_LINES, ".parquet")


class BadRowError(ValueError):
    """A row that cannot be read, or is not what it should be."""


def file_rows(path: Path, span: tuple[int, int] | None = None) -> Iterator[tuple[int, str, Any]]:
    """The rows of a `.jsonl` or `.parquet` file.

    Args:
        path: the file.
        span: the part to read, in bytes or rows.

    Yields:
        The position after the row, as spans count; its place, for messages; the row, or a `BadRowError` if it
        cannot be read.

    Raises:
        ValueError: it is not such a file, or a Parquet file is broken.
    """
    check_file(path)
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, span)
        return
    begin, stop = span or (0, None)
    with path.open("rb") as file:
        file.seek(begin)
        yield from json_rows(file, begin, stop)


def file_length(path: Path) -> int:
    """Lines or rows of a `.jsonl` or `.parquet` file, without parsing them."""
    if path.suffix == ".parquet":
        return _parquet(path).metadata.num_rows
    with path.open("rb") as file:
        return sum(1 for _ in numbered_lines(file))


def check_file(path: Path) -> None:
    """Raises a ValueError if the path is not a file in one of `FORMATS`."""
    if not os.path.isfile(path):  # false, not an error, if the name is too long
        raise ValueError(f"{path} is not a file; accepted: .jsonl, .parquet, - (standard input), hub:<data set>")
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path} ends in {path.suffix!r}; accepted: .jsonl, .ndjson, .json (one per line), .parquet; not compressed"
        )


def json_rows(file: Iterable[bytes], begin: int = 0, stop: int | None = None) -> Iterator[tuple[int, str, Any]]:
    """The rows of JSON lines that begin at byte `begin` of their file, up to byte `stop`; yields as `file_rows`."""
    line_begin = begin
    for number, end, line in numbered_lines(file, begin):
        if stop is not None and line_begin >= stop:
            return
        place = f"line {number}" if begin == 0 else f"line {number} from byte {begin}"
        try:
            yield end, place, parse_line(line)
        except ValueError as error:
            yield end, place, BadRowError(str(error))
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
        return BadRowError(f"a value cannot be read ({error})")


def _checked_row(row: dict[str, Any]) -> Any:
    try:
        return without_nan(row)
    except BadRowError as error:
        return error


def without_nan(value: Any) -> Any:
    """The value with None for NaN, which tables use for a missing number; a `BadRowError` if it holds infinity."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise BadRowError(f"a number is {value}; accepted: finite numbers")
    return value
