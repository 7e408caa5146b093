"""Judgements: BEIR's and TREC's forms, exactly as they stand, or refused by file and line."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_rabtriever.tasks.qrels import read_qrels

HEADER = "query-id\tcorpus-id\tscore\n"


def found(path: Path, content: str | bytes) -> list[tuple[str, str, int]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(judged.query_id, judged.corpus_id, judged.grade) for judged in read_qrels(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.tsv"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + "q\td\t1\n", [("q", "d", 1)]),
        ("q\td\t1\nr\te\t0\n", [("q", "d", 1), ("r", "e", 0)]),  # no header
        ("corpus-id\tscore\tquery-id\nd\t2\tq\n", [("q", "d", 2)]),
        ("query-id corpus-id score\nq  d 1\n", [("q", "d", 1)]),
        ("q d 1\n", [("q", "d", 1)]),
        ("q 0 d 1\nq Q0 e 2\n", [("q", "d", 1), ("q", "e", 2)]),  # TREC's
        ("q\t0\td\t3\n", [("q", "d", 3)]),
        (
            HEADER + "q\td\t1.0\nq\te\t+2\nq\tf\t-1\nq\tg\t0.\n",
            [("q", "d", 1), ("q", "e", 2), ("q", "f", -1), ("q", "g", 0)],
        ),
        (
            HEADER + "NA\tnull\t1\nnan\tNone\t1\n0012\t1.0\t1\n",
            [("NA", "null", 1), ("nan", "None", 1), ("0012", "1.0", 1)],
        ),
        (HEADER + 'a b\t"c"\t1\n', [("a b", '"c"', 1)]),  # what stands between tabs
        (HEADER + "a\u2028b\tc\x85\t1\n", [("a\u2028b", "c\x85", 1)]),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"q\td\t1\r\n\r\n", [("q", "d", 1)]),
        ("", []),
    ],
)
def test_forms(path: Path, content: str | bytes, expected: list[tuple[str, str, int]]) -> None:
    assert found(path, content) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "q\td\t0.5\n", "line 2 has the score '0.5'; accepted: whole numbers"),
        (HEADER + "q\td\tyes\n", "line 2 has the score 'yes'; accepted: whole numbers"),
        (HEADER + "q\td\t\n", "line 2 has the score ''; accepted: whole numbers"),
        (HEADER + "q\td\tnan\n", "line 2 has the score 'nan'"),
        (HEADER + "q\td\t1e3\n", "line 2 has the score '1e3'"),
        (HEADER + "q\td\t" + "9" * 5000, "line 2 has the score '9999"),
        (HEADER + "q\td\t\u0661\n", "line 2 has the score '\u0661'"),
        (HEADER + "q\td\n", "line 2 is 'q\\td', 2 columns after 3; accepted: query-id, corpus-id and score"),
        (HEADER + "q d 1\n", "line 2 is 'q d 1', 1 columns after 3"),
        (HEADER + "q\t0\td\t1\n", "line 2 is 'q\\t0\\td\\t1', 4 columns after 3"),
        ("q\td\t1\nq\td\t1\textra\n", "line 2 is 'q\\td\\t1\\textra', 4 columns after 3"),
        ("q 1 d 1\n", "line 1 is 'q 1 d 1'; accepted: "),  # an iteration, or the subtopic of a diversity track
        ("q 0 d 1\nq 2 e 1\n", "line 2 is 'q 2 e 1'; accepted: "),
        ("qid\tdocid\trel\nq\td\t1\n", "line 1 has the header 'qid\\tdocid\\trel'; accepted: query-id, corpus-id"),
        ("query-id\tcorpus-id\nq\td\n", "line 1 is 'query-id\\tcorpus-id'; accepted: "),
        ("q,d,1\n", "line 1 is 'q,d,1'; accepted: query-id, corpus-id and score, separated by tabs or spaces"),
        (HEADER.encode() + b"q\t\xff\t1\n", "line 2: not UTF-8 (byte 2 of the line); accepted: UTF-8"),
    ],
)
def test_what_is_refused(path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")):
        found(path, content)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    content=st.binary(max_size=40)
    | st.lists(st.sampled_from(["q", "d", "\t", " ", "\n", "1", "0", ".", "-", HEADER, "Q0", "\u2028", "\x00"])).map(
        "".join
    )
)
def test_any_file_is_read_or_refused(path: Path, content: str | bytes) -> None:
    try:
        judgements = found(path, content)
    except ValueError as error:
        assert "accepted: " in str(error)  # noqa: PT017
        return
    lines = path.read_bytes().count(b"\n") + 1
    assert len(judgements) <= lines and all(type(grade) is int for _, _, grade in judgements)
