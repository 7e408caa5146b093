import pytest

from benchmarks import search_cost, search_gpu
from benchmarks.timing import interleaved, median_ratio


def test_ways_take_turns_and_the_first_call_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []
    seconds = interleaved({name: lambda number, n=name: calls.append((n, number)) for name in "ab"}, 3)
    assert calls == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_a_ratio_compares_within_rounds() -> None:
    assert median_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == (2.0, (1.0, 3.0))


def test_cost_of_a_hundred_million_documents() -> None:
    assert search_cost.encoding_seconds(10, 5, 100.0, 0.5) == pytest.approx(10 * (2 * 5 / 100 + 0.5))
    found = search_cost.plan("one", 1_000_000_000, 256, 0.0)
    tokens = 100_000_000 * 64
    assert found["gpu_hours"] == pytest.approx(tokens * 2e9 / (0.4 * 989e12) / 3600)
    assert found["hours_on_all_gpus"] == pytest.approx(found["gpu_hours"] / 64)
    assert found["vector_gigabytes"] == {"float32": 102.4, "float16": 51.2, "int8": 25.6}
    assert found["gpus_that_hold_float16"] == 1
    assert found["milliseconds_per_query"] == pytest.approx(1e3 * 51.2e9 / (0.7 * 3.35e12))


def test_predictions_come_from_other_measurements() -> None:
    speeds = {"bare": 100.0, "tokenising": 1000.0}
    encoding = {"rows": [{"tokens_per_second": speeds}], "settings": {"parameters": 7}}
    exact = {"engine": "ours fp32", "k": 4, "gb_per_second": 2.0}
    stores = {
        "rows": [{**exact, "documents": 10, "one_query_ms": 1.0}, {**exact, "documents": 1000, "one_query_ms": 3.0}]
    }
    memory = {"rows": [{"documents": 50, "tokens_per_document": 2, "parameters": 14, "seconds": 4.2, "embedding_dim": 4,
                        "vector_bytes": 1600}]}  # fmt: skip
    seconds, size, query = search_cost.checks(encoding, stores, memory)
    assert seconds["predicted"] == pytest.approx(100 * (2 / 100 + 1 / 1000))
    assert seconds["ratio"] == pytest.approx(2.1 / 4.2)
    assert size["ratio"] == pytest.approx(0.5)
    assert query["predicted"] == pytest.approx(1e3 * 16_000 / 2e9)


def test_the_gpu_script_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_gpu, "FASTER", {8: 1.0, 9: 1.0})
    for name, value in {"REPEATS": 1, "ENCODED": 64}.items():
        monkeypatch.setattr(search_gpu, name, value)
    rows = search_gpu.measure("cpu", ["tiny"], 1, 500)
    assert [row["what"] for row in rows] == ["device", "query", "query", "encoding", "exact search"]
    assert rows[-1]["documents"] == 500 and rows[-1]["milliseconds_1"] > 0
    assert rows[3]["share_of_matrix_rate"] > 0
    assert set(rows[1]["milliseconds"]) == {"teacher", "cached teacher", "student"}


def test_without_a_gpu_the_bars_say_so() -> None:
    bars = search_gpu.bars_of([], "no GPU")
    assert len(bars) == 4
    assert {bar["value"] for bar in bars} == {None} and {bar["why"] for bar in bars} == {"no GPU"}
