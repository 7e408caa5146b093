"""Reads JSON strictly: what is not UTF-8 and standard JSON with every key once is refused; types are never guessed."""

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

DEPTH = 64  # levels of nested objects and lists; code that writes them again recurses once per level
_EXACT_FIELDS = ("id", "_id", "query-id", "corpus-id")  # a number in them is an id, and is kept as its text
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def numbered_lines(lines: Iterable[bytes], begin: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Lines that are not blank, without a byte order mark at the start of the file.

    Args:
        lines: of a binary file.
        begin: byte of the file at which they begin.

    Yields:
        The line's number, from 1 at `begin`; the byte of the file after it; the line.
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
        ValueError: it is not UTF-8.
    """
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start} of the line); accepted: UTF-8") from None


def parse_line(line: bytes) -> Any:
    """The line's value. A number used as an id (`id`, `_id`, `query-id`, `corpus-id`) keeps its exact text.

    Raises:
        ValueError: the line is not UTF-8 or not JSON, holds NaN, an infinite number, half of a surrogate pair or a key
            twice, or is nested deeper than 64 levels.
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
        raise ValueError(f"broken JSON ({str(error).partition('; use ')[0]}); accepted: one object per line") from None
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise ValueError(_too_deep())
    if _ESCAPED_SURROGATE.search(text):
        _check_text(value)
    if isinstance(value, dict):
        numbers = [name for name in _EXACT_FIELDS if _may_differ_from_its_text(value.get(name))]
        if numbers:
            exact = _TEXTS.decode(text)
            value.update({name: exact[name] for name in numbers})
    return value


def keys_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as a dict, for the `object_pairs_hook` of the json module, which keeps the later value.

    Raises:
        ValueError: a key stands twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_VALUES = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=keys_once)
_TEXTS = json.JSONDecoder(parse_float=str, parse_int=str)


def _may_differ_from_its_text(value: Any) -> bool:
    return type(value) is float or (type(value) is int and value == 0)  # 1e3, 1.50; -0


def _too_deep() -> str:
    return f"broken JSON (objects or lists nested too deep); accepted: at most {DEPTH} levels"


def _depth(value: Any) -> int:
    depth = 0
    level = [value] if isinstance(value, (dict, list)) else []
    while level:
        depth += 1
        parts = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
        level = [part for part in parts if isinstance(part, (dict, list))]
    return depth


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start]
        raise ValueError(f"broken text (half of a surrogate pair, {found!r}); accepted: whole characters") from None
