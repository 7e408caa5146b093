"""JSON lines: what stands there, or a refusal; never a guess."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_rabtriever.retrieval.json_lines import DEPTH, decode_line, numbered_lines, parse_line

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def whole(value: Any) -> bool:
    """Whether standard JSON can say it."""
    if isinstance(value, dict):
        return all(whole(name) and whole(part) for name, part in value.items())
    if isinstance(value, list):
        return all(map(whole, value))
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(value=anything)
def test_a_value_comes_back_as_it_was_or_is_refused(value: Any) -> None:
    line = json.dumps(value).encode() + b"\n"
    value = json.loads(line)  # halves of a surrogate pair that stood side by side are one character now
    if whole(value) and not isinstance(value, dict):
        assert parse_line(line) == value
    elif not whole(value):
        with pytest.raises(ValueError, match="accepted: "):
            parse_line(line)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(line=st.binary(max_size=40) | st.text('{}[]":,\\ud8019.eE+-tfn \x00', max_size=40).map(str.encode))
def test_any_line_is_read_or_refused(line: bytes) -> None:
    try:
        value = parse_line(line)
    except ValueError as error:
        assert "accepted: " in str(error)  # noqa: PT017
        return
    assert whole(value)


@pytest.mark.parametrize("written", ["1e3", "1.50", "-0", "0", "7", "12345678901234567890123", "1E-400"])
@pytest.mark.parametrize("name", ["id", "_id", "query-id", "corpus-id"])
def test_a_number_that_is_an_id_is_its_text(name: str, written: str) -> None:
    found = parse_line(f'{{"{name}": {written}, "x": [{written}]}}'.encode())
    assert str(found[name]) == written
    assert found["x"] == [json.loads(written)]  # elsewhere it is a number


@pytest.mark.parametrize("text", ["2020-01-01", "NA", "null", "nan", "None", "1", "1.0", "", "true", "\u2028", "é"])
def test_a_string_stays_a_string(text: str) -> None:
    assert parse_line(json.dumps({"id": text, "text": text}, ensure_ascii=False).encode()) == {"id": text, "text": text}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": NaN}', "broken JSON (NaN is not JSON)"),
        (b'{"a": -Infinity}', "broken JSON (-Infinity is not JSON)"),
        (b'{"a": 1e999}', "broken JSON (the number 1e999 is too large)"),
        (b"1" * 5000, "broken JSON (Exceeds the limit (4300 digits)"),
        (b'{"a": "\\ud800"}', r"broken text (half of a surrogate pair, '\ud800')"),
        (b'{"\\uDFFF": 1}', r"broken text (half of a surrogate pair, '\udfff')"),
        (b'"\xed\xa0\x80"', "not UTF-8 (byte 1 of the line)"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 (byte 0 of the line)"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "nested too deep); accepted: at most 64 levels"),
        (b'{"a": ' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1), "nested too deep"),
        (b'{"_id": "a", "text": "x", "text": "y"}', "broken JSON (the key 'text' stands twice)"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "broken JSON (the key 'b' stands twice)"),
        (b'{"a;b": 1, "a;b": 2}', "broken JSON (the key 'a;b' stands twice)"),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 99, b"k" * 99), f"broken JSON (the key '{'k' * 40}' stands twice)"),
        (b"{} {}", "broken JSON (Extra data, character 4)"),
        (b"", "broken JSON (Expecting value"),
    ],
)
def test_what_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="accepted: ") as refused:
        parse_line(line)
    assert message in str(refused.value)


def test_what_looks_broken_and_is_not() -> None:
    assert parse_line(b'"\\ud83d\\ude42 \\\\ud800"') == "🙂 \\ud800"  # a whole pair; a backslash and letters
    assert parse_line(b"[" * DEPTH + b"]" * DEPTH) is not None
    assert len(parse_line(b"[" + b"[], " * 500 + b"[]]")) == 501


def test_lines_and_where_they_end() -> None:
    lines = [b"\xef\xbb\xbfa\r\n", b" \n", "b\u2028c\n".encode(), b"d"]
    assert list(numbered_lines(lines)) == [(1, 6, b"a\r\n"), (3, 14, "b\u2028c\n".encode()), (4, 15, b"d")]
    assert decode_line(b"a\r\n") == "a"
    assert list(numbered_lines([b"\xef\xbb\xbfa\n"], begin=5)) == [(1, 10, b"\xef\xbb\xbfa\n")]  # no start of a file
