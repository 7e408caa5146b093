"""Reads files of ids, exactly as they were encoded."""

import sys
from pathlib import Path

from .documents import row_id
from .json_lines import parse_line
from .rows import JSON_LINES


def read_ids(source: str) -> list[str]:
    r"""The ids in a file.

    Lines end only at `\n` or `\r\n`. They are not stripped, and empty ones are skipped. In a `.jsonl`, `.ndjson` or
    `.json` file, each line is read like a line of a corpus: a JSON string, or an object with `id` or `_id`. So it can
    name any id. In any other file a line is an id.

    Args:
        source: a UTF-8 file, or `-` for ids on standard input.

    Raises:
        ValueError: there is no such file, or a line is not UTF-8, or not JSON with an id.
        OSError: the file cannot be read.
    """
    path = Path(source)
    if source != "-" and not path.is_file():
        raise ValueError(f"{source} is not a file; accepted: a file of ids, one per line, or - (standard input)")
    content = sys.stdin.buffer.read() if source == "-" else path.read_bytes()
    as_json = path.suffix in JSON_LINES
    ids = []
    *lines, last = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate([*(line.removesuffix(b"\r") for line in lines), last], start=1):
        if not (line.strip() if as_json else line):
            continue
        try:
            ids.append(_json_id(line) if as_json else line.decode())
        except ValueError as error:
            raise ValueError(f"{source} line {number} names no id ({error})") from error
    return ids


def _json_id(line: bytes) -> str:
    row = parse_line(line)
    id_ = row_id(row) if isinstance(row, dict) else row
    if not isinstance(id_, str):
        raise ValueError(f"{line[:60]!r}; accepted: a JSON string, or an object with id or _id")
    return id_
