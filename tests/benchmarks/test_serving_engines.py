"""How the engines' answers are compared with the model's; `make serving` runs the engines."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_tables import serving_engines as table
from tests import serving_engines, serving_runners
from tests.serving_engines import bars_of, compared, difference, main, order_kept, rows_of


def test_differences_and_orders_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 4.0, 2.0]])
    assert difference(scores + 0.02, scores) == pytest.approx(0.005)  # of 4
    assert order_kept(scores * 7 - 3, scores) == 1
    assert order_kept(np.array([[3.0, 1.0, 2.0], [1.0, 4.0, 2.0]]), scores) == 0.5
    tied = np.array([[1.0, 1.0 + 1e-6, 0.0]])
    assert order_kept(tied[:, [1, 0, 2]], tied) == 1  # near ties may change places
    many = np.arange(30.0)[None]
    late = many.copy()
    late[0, [0, 1]] = late[0, [1, 0]]  # beyond the first ten
    assert order_kept(late, many) == 1


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Vectors of a model in which the documents' lengths decide."""
    monkeypatch.setattr(serving_engines, "MODELS", tmp_path)
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "query.npy", np.array([[1.0, 0.0], [0.5, 0.5]]))
    documents = np.array([[1.0, 0.0], [3.0, 3.0], [0.0, 0.1]])
    np.save(tmp_path / "m" / "document.npy", documents)
    return documents


def test_engines_that_change_lengths_lose_the_order(answers: np.ndarray) -> None:
    document = {"model": "m", "tower": "document", "engine": "vLLM"}
    assert compared(document, answers.tolist()) == {"difference": 0, "order": 1}
    unit = answers / np.linalg.norm(answers, axis=1, keepdims=True)
    assert compared(document, unit.tolist())["order"] < 1
    assert compared(document | {"engine": "Infinity"}, unit.tolist())["difference"] == 0
    query = {"model": "m", "tower": "query", "engine": "Infinity"}
    assert compared(query, [[1.0, 0.0], [2**-0.5, 2**-0.5]])["order"] == 1


def test_no_answer_holds_no_bar() -> None:
    row = {"engine": "vLLM", "version": "1", "model": "m", "tower": "query", "texts": 3, "answered": 3}
    good = row | {"difference": 1e-6, "order": 1.0}
    assert [line["holds"] for line in bars_of("vLLM", [good])] == [True, True]
    broken = row | {"answered": 0, "difference": None, "order": None, "why": "ValueError"}
    bars = bars_of("vLLM", [good, broken])
    assert bars[0]["value"] is None and bars[0]["why"] == "ValueError" and bars[1]["holds"] is False
    skipped = {"engine": "vLLM", "version": None, "model": None, "tower": None, "why": "not installed"}
    assert [line["value"] for line in bars_of("vLLM", [skipped])] == [None, None]
    other = good | {"model": "n", "difference": 3e-6, "order": 0.75, "answered": 2}
    shown = table({"rows": [good, other, broken, skipped]})
    assert "| vLLM (1) | query tower | m, n | 5 of 6 | 3e-06 | 0.75 |" in shown  # the worst of both
    assert "| vLLM (1) | query tower | m | not served: ValueError | | |" in shown
    assert "| vLLM |  |  | not served: not installed | | |" in shown


def test_an_engine_that_cannot_be_installed_is_skipped_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*given: object) -> Path:
        raise subprocess.TimeoutExpired("pip", 600)

    monkeypatch.setattr(serving_engines, "environment", never)
    (row,) = rows_of(serving_runners.RUNNERS[1])
    assert row["model"] is None and "600 seconds" in row["why"] and "skipped: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="engines are vllm; accepted: .*vLLM"):
        main(["vllm"])


def test_commands_run_as_they_are_printed(tmp_path: Path) -> None:
    jobs = [{"command": "import math\nvectors = [[math.pi, len(text)] for text in texts]", "texts": ["ab", ""]}]
    jobs += [{"command": "vectors = nothing", "texts": ["a"]}, {"command": "scores = [2.5]", "pairs": [["a", "b"]]}]
    found = serving_runners.run(Path(sys.executable), serving_runners._PYTHON, jobs, tmp_path / "log.txt")
    assert found[0] == [[pytest.approx(np.pi), 2.0], [pytest.approx(np.pi), 0.0]] and found[2] == [2.5]
    assert "name 'nothing' is not defined" in found[1]
    assert serving_runners.run(Path(sys.executable), "1 / 0", jobs[:1], tmp_path / "log.txt") == [
        "the engine ended without an answer"
    ]
    assert "ZeroDivisionError" in (tmp_path / "log.txt").read_text()
