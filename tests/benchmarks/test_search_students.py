"""The benchmark of small students runs on tiny ones."""

from typing import Any

import pytest

from benchmarks import search_students
from benchmarks.search_students import LARGE, SMALL, bars_of, measured_encoding, measured_queries
from benchmarks.search_tables import TABLES

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_tiny_students(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: dict[str, dict[str, Any]] = {}
    for name in ("SMOLLM2", "MINILM", "QWEN3"):
        shapes[name] = {**getattr(search_students, name), **TINY, "vocab_size": 8192}
        shapes[name] |= {"num_key_value_heads": 1} if name != "MINILM" else {}
        monkeypatch.setattr(search_students, name, shapes[name])
    monkeypatch.setattr(search_students, "LAYERS", (1, 2))
    rows = measured_queries(2)
    assert 0 < 2 * rows[1]["parameters"] - rows[2]["parameters"] <= TINY["hidden_size"]  # the final norm
    rows += [measured_encoding(SMALL, shapes["MINILM"], 2), measured_encoding(LARGE, shapes["QWEN3"], 1)]
    assert all(row["interval"][0] > 0 for row in rows)
    assert [bar["op"] for bar in bars_of(rows)] == [">="] * 3 + ["<="] * 2
    assert "the teacher's first 1 layers" in TABLES["search_students"]({"rows": rows})
