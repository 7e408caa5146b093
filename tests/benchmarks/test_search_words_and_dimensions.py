"""The benchmarks of hybrid search and of shorter vectors, on a small corpus."""

from pathlib import Path

import pytest
import torch

from benchmarks import search_dimensions, search_hybrid, search_tables
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.evaluation.metrics import query_metrics
from modeling_rabtriever.tasks.beir import load_beir


def test_every_way_finds_the_best_or_says_how_many() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(120, 80, generator=generator) + 1, torch.randn(5, 80, generator=generator)
    truth = [sorted(range(120), key=lambda row: -float(vectors[row] @ query))[:10] for query in queries]
    ways = search_dimensions.ways(vectors)
    sizes = {name: size for name, (_, size) in ways.items()}
    assert sizes == {
        "whole vectors": 320, "16 numbers": 64, "32 numbers": 128, "64 numbers": 256, "80 numbers": 320,
        "64 numbers, rescored": 256, "int8, rescored": 80, "signs, rescored": 10,
    }  # fmt: skip
    found = {name: search(queries) for name, (search, _) in ways.items()}
    for name in ("whole vectors", "80 numbers", "64 numbers, rescored", "int8, rescored"):
        assert found[name] == truth, name  # 100 of 120 candidates, nearly in order
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(found["signs, rescored"], truth, strict=True)]
    assert sum(shares) / 5 > 0.9
    kept = {
        dim: sum(len(set(a) & set(b)) for a, b in zip(found[f"{dim} numbers"], truth, strict=True))
        for dim in (16, 32, 64)
    }
    assert kept[16] < kept[64] < 50


def test_signs_are_of_the_documents_without_their_mean() -> None:
    # Without the mean taken away, all signs would be equal.
    vectors = torch.tensor([[9.0, 8.0], [8.0, 9.0]]).repeat_interleave(8, dim=1)
    stage = search_dimensions.sign_stage(vectors)
    query = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat_interleave(8, dim=1)
    assert [own[0] for own in stage(query)] == [0, 1]


def test_a_hybrid_row(student: RabtrieverModel, beir_folder: Path, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    row = search_hybrid.measure("animals", str(beir_folder), str(tmp_path / "student"), tmp_path / "runs")
    task = load_beir(beir_folder)
    test = task.split("test")
    scores = student.similarity(student.encode_query(test.queries), student.encode_document(task.corpus))
    best = scores.argsort(dim=1, descending=True, stable=True).tolist()
    expected = query_metrics(best, test.relevant, ["ndcg@10"])["ndcg@10"].mean()
    assert row["systems"]["student"]["ndcg@10"]["mean"] == pytest.approx(expected)
    assert set(row["p_against_hybrid"]) == set(row["systems"]) - {"hybrid"} and row["n"] == len(test)
    assert 0 <= row["queries"]["words above student"] + row["queries"]["student above words"] <= 1
    (bar,) = search_hybrid.bars_of([row])
    means = {name: metrics["ndcg@10"]["mean"] for name, metrics in row["systems"].items()}
    assert bar["value"] == pytest.approx(means["hybrid"] / max(means["words"], means["student"]))
    table = search_tables.search_hybrid({"rows": [row]})
    assert table.count("**") == 2 and "| animals | words alone above the student for" in table
