"""Files of ids, exactly as they were encoded."""

import json
import sys
from pathlib import Path
from typing import Any


def read_ids(source: str) -> list[str]:
    r"""The ids a file names.

    Lines end at `\n` or `\r\n` alone, nothing is stripped of them, and empty ones are passed over. In a `.jsonl` file
    each holds a JSON string or an object with `id` or `_id`, so that any id can be named; in another, an id.

    Args:
        source: a file of UTF-8, or `-` for ids on standard input.

    Raises:
        ValueError: a line is no UTF-8, or no JSON with an id.
        OSError: the file cannot be read.
    """
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    ids = []
    *lines, last = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate([*(line.removesuffix(b"\r") for line in lines), last], start=1):
        if not line:
            continue
        try:
            text = line.decode()
            ids.append(_json_id(text) if source.endswith(".jsonl") else text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source} line {number} names no id ({error})") from error
    return ids


def _json_id(line: str) -> str:
    row: Any = json.loads(line)
    if isinstance(row, dict):
        row = row.get("_id") if row.get("id") is None else row["id"]
        if isinstance(row, int) and not isinstance(row, bool):
            return str(row)  # as an encoded corpus has it
    if not isinstance(row, str):
        raise ValueError(f"{line[:60]!r}; accepted: a JSON string, or an object with id or _id")
    return row
