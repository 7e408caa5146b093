"""JSON lines, read strictly: a line is UTF-8 and standard JSON, or it is refused; types are never guessed."""

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

DEPTH = 64  # objects and lists in one another; what writes them again goes one level deeper for each
_ID_FIELDS = ("id", "_id", "query-id", "corpus-id")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def numbered_lines(lines: Iterable[bytes], begin: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Lines that are not blank, without a byte order mark at the start of the file.

    Args:
        lines: what iterating a binary file gives.
        begin: byte of the file where they begin.

    Yields:
        The line's number, from 1 at `begin`; the byte of the file behind it; the line.
    """
    end = begin
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(codecs.BOM_UTF8) if end == 0 else line
        end += len(line)
        if content.strip():
            yield number, end, content


def decode_line(line: bytes) -> str:
    """The line as text, without its line break.

    Raises:
        ValueError: it is no UTF-8.
    """
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 (byte {error.start} of the line); accepted: UTF-8") from None


def parse_line(line: bytes) -> Any:
    """The line's value. A number that stands as an id (`id`, `_id`, `query-id`, `corpus-id`) becomes its text.

    Raises:
        ValueError: it is no UTF-8 or no JSON, holds NaN, an infinite number or half of a surrogate pair, or goes deeper
            than 64 levels.
    """
    text = decode_line(line)
    try:
        value = _VALUES.decode(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except json.JSONDecodeError as error:
        found = f"{error.msg}, character {error.pos + 1}"
        raise ValueError(f"broken JSON ({found}); accepted: one object per line") from None
    except ValueError as error:
        raise ValueError(f"broken JSON ({str(error).partition(';')[0]}); accepted: one object per line") from None
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise ValueError(_too_deep())
    if _SURROGATE.search(text):
        _check_text(value)
    if isinstance(value, dict):
        numbers = [name for name in _ID_FIELDS if _may_differ_from_its_text(value.get(name))]
        if numbers:
            exact = _TEXTS.decode(text)
            value.update({name: exact[name] for name in numbers})
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_VALUES = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_TEXTS = json.JSONDecoder(parse_float=str, parse_int=str)


def _may_differ_from_its_text(value: Any) -> bool:
    return type(value) is float or (type(value) is int and value == 0)  # 1e3, 1.50; -0


def _too_deep() -> str:
    return f"broken JSON (objects or lists nested too deep); accepted: at most {DEPTH} levels"


def _depth(value: Any) -> int:
    depth, level = 0, [value] if isinstance(value, (dict, list)) else []
    while level:
        parts = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
        depth, level = depth + 1, [part for part in parts if isinstance(part, (dict, list))]
    return depth


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start]
        raise ValueError(f"broken text (half of a surrogate pair, {found!r}); accepted: whole characters") from None
