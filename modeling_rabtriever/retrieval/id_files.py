"""Files of ids, exactly as they were encoded."""

import sys
from pathlib import Path

from .documents import JSON_LINES, row_id
from .json_lines import parse_line


def read_ids(source: str) -> list[str]:
    r"""The ids a file names.

    Lines end at `\n` or `\r\n` alone, nothing is stripped of them, and empty ones are passed over. In a `.jsonl`,
    `.ndjson` or `.json` file each is read as a line of a corpus is: a JSON string, or an object with `id` or `_id`, so
    that any id can be named. In another file a line is an id.

    Args:
        source: a file of UTF-8, or `-` for ids on standard input.

    Raises:
        ValueError: there is no such file, or a line is no UTF-8, or no JSON with an id.
        OSError: the file cannot be read.
    """
    path = Path(source)
    if source != "-" and not path.is_file():
        raise ValueError(f"{source} is no file; accepted: a file of ids, one per line, or - (standard input)")
    content = sys.stdin.buffer.read() if source == "-" else path.read_bytes()
    as_json, ids = path.suffix in JSON_LINES, []
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
