"""The benchmark of draws runs on a small corpus."""

from benchmarks.student_draws import bars_of, measure


def test_a_small_corpus() -> None:
    row = measure(2_000)
    assert row["documents"] == 2_000 and row["seconds_per_1000_queries"] > 0 and row["extra_bytes"] >= 0
    assert [bar["n"] for bar in bars_of([row])] == [3, 1]
