"""Run files: written and read back, read by trec_eval, and refused where they are broken."""

from pathlib import Path

import pytest
import pytrec_eval
import torch

from modeling_rabtriever.evaluation.metrics import query_metrics, rank_documents
from modeling_rabtriever.evaluation.runs import read_run, run_names, write_run

QUERIES, DOCUMENTS = ["q0", "q1"], ["a", "b", "c"]
SCORES = torch.tensor([[0.25, 1.5, -2.0], [3.0, 3.5, float("-inf")]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "one system.trec"
    write_run(path, "one system", QUERIES, DOCUMENTS, rank_documents(SCORES, 3), SCORES)
    return path


def test_written_and_read_back(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[:2] == ["q0 Q0 b 1 1.5 one_system", "q0 Q0 a 2 0.25 one_system"]
    assert len(lines) == 5  # what scores minus infinity is not ranked
    assert read_run(path, QUERIES, DOCUMENTS) == [[1, 0, 2], [1, 0]]
    assert run_names([str(path)]) == {"one system": path}


def test_trec_eval_reads_the_same(path: Path) -> None:
    with path.open() as file:
        run = pytrec_eval.parse_run(file)
    judged = {"q0": {"a": 1, "c": 2}, "q1": {"a": 1}}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut_3", "map_cut_3"}).evaluate(run)
    ours = query_metrics(read_run(path, QUERIES, DOCUMENTS), [{0: 1, 2: 2}, {0: 1}], ["ndcg@3", "map@3"])
    for row, query in enumerate(QUERIES):
        assert ours["ndcg@3"][row] == pytest.approx(theirs[query]["ndcg_cut_3"], abs=1e-9)
        assert ours["map@3"][row] == pytest.approx(theirs[query]["map_cut_3"], abs=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("q0 Q0 a 2 0.25", "q0 Q0 a 2 7.5", r"line 2 has score 7.5 below 1.5; accepted: scores that fall"),
        ("q0 Q0 a 2 0.25", "q0 Q0 a 2 nan", r"line 2 has the score nan; accepted: finite"),
        ("q0 Q0 a 2", "q0 Q0 b 2", r"line 2 names 'b' for query 'q0' a second time"),
        ("q0 Q0 a 2", "q0 Q0 a 3", r"line 2 has rank 3; accepted: 2"),
        ("q0 Q0 a 2", "q0 Q0 z 2", r"line 2 names document 'z'"),
        ("q0 Q0 a 2", "q7 Q0 a 2", r"line 2 ranks for query 'q7'"),
        ("q0 Q0 a 2 0.25 one_system", "q0 a 2 0.25", r"line 2 is 'q0 a 2 0.25'; accepted: query-id Q0"),
    ],
)
def test_a_broken_run_is_reported_not_averaged(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_run(path, QUERIES, DOCUMENTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"q0 Q0 \xff 1 1.5 x\n", r"line 1: not UTF-8 \(byte 6 of the line\); accepted: UTF-8"),
        (b"q0 Q0 b " + b"1" * 5000 + b" 1.5 x\n", r"line 1 is 'q0 Q0 b 111.*; accepted: query-id Q0"),
        (b"q0 Q0 b 1 1e999 x\n", r"line 1 has the score 1e999; accepted: finite"),
        (b"q0 Q0 b 1 " + b"9" * 5000 + b" x\n", r"line 1 has the score 999"),
    ],
)
def test_lines_no_ranking_has_are_refused(path: Path, line: bytes, message: str) -> None:
    path.write_bytes(line)
    with pytest.raises(ValueError, match=message):
        read_run(path, QUERIES, DOCUMENTS)


def test_a_byte_order_mark_and_blank_lines_are_no_lines_of_a_run(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\n")
    assert read_run(path, QUERIES, DOCUMENTS) == [[1, 0, 2], [1, 0]]


def test_missing_queries_and_files_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks 1 of 3 queries, the first is 'q2'"):
        read_run(path, [*QUERIES, "q2"], DOCUMENTS)
    with pytest.raises(ValueError, match=r"none\.trec is not a file"):
        run_names([str(tmp_path / "none.trec")])
    with pytest.raises(ValueError, match=r"have the same name"):
        run_names([str(path), str(path)])
    with pytest.raises(ValueError, match=r"the id 'a b' cannot be used in a run file"):
        write_run(path, "x", ["a b"], DOCUMENTS, [[0]], SCORES)
