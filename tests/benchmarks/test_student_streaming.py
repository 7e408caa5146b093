"""The benchmark of streaming runs on a small task."""

from pathlib import Path

import pytest

from benchmarks import student_streaming
from benchmarks.student_streaming import bars_of, measure, write_task
from benchmarks.student_tables import TABLES


def test_a_small_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_streaming, "STEPS", 2)
    monkeypatch.setattr(student_streaming, "BATCH", 4)
    write_task(tmp_path / "60", 60)
    row = measure(tmp_path / "60", tmp_path / "runs")
    assert row["documents"] == row["queries"] == 60 and row["teacher_pairs"] == 2 * 4 * 4
    assert row["own_gb"] >= row["start_gb"] > 0 and [bar["op"] for bar in bars_of(row)] == ["<=", "<="]
    assert "| 60 |" in TABLES["student_streaming"]({"rows": [row]})
    before = (tmp_path / "60" / "corpus.jsonl").stat().st_mtime_ns
    write_task(tmp_path / "60", 60)
    assert (tmp_path / "60" / "corpus.jsonl").stat().st_mtime_ns == before
