"""The metrics against trec_eval, and as a module of `evaluate`."""

import random
from pathlib import Path

import evaluate
import numpy as np
import pytest
import pytrec_eval

from modeling_rabtriever.evaluation import metrics
from modeling_rabtriever.evaluation.metrics import paired_test, query_metrics

PAIRS = {
    "recall@5": "recall_5",
    "success@5": "success_5",
    "ndcg@10": "ndcg_cut_10",
    "map@1000": "map",
    "map@10": "map_cut_10",
    "mrr@1000": "recip_rank",
}


@pytest.fixture
def runs() -> tuple[list[list[str]], list[dict[str, int]]]:
    rng = random.Random(0)
    corpus = [f"d{number}" for number in range(60)]
    run = [rng.sample(corpus, rng.randint(1, 60)) for _ in range(200)]
    relevant = [dict.fromkeys(rng.sample(corpus, rng.randint(1, 12)), 1) for _ in range(200)]
    for judged in relevant:
        for document in judged:
            judged[document] = rng.randint(1, 3)
    return run, relevant


def test_agreement_with_trec_eval(runs: tuple[list[list[str]], list[dict[str, int]]]) -> None:
    run, relevant = runs
    measures = {"recall.5", "success.5", "ndcg_cut.10", "map", "map_cut.10", "recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator({str(i): judged for i, judged in enumerate(relevant)}, measures)
    scored = {
        str(i): {d: float(len(ranking) - place) for place, d in enumerate(ranking)} for i, ranking in enumerate(run)
    }
    expected = evaluator.evaluate(scored)
    found = query_metrics(run, relevant, list(PAIRS))
    for ours, theirs in PAIRS.items():
        np.testing.assert_allclose(found[ours], [expected[str(i)][theirs] for i in range(len(run))], atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # numba's
def test_agreement_with_ranx(runs: tuple[list[list[str]], list[dict[str, int]]]) -> None:
    ranx = pytest.importorskip("ranx", reason="pip install ranx: its compiler, numba, is too heavy for every test run")
    run, relevant = runs
    names = ["recall@5", "ndcg@10", "map@10", "mrr@10"]
    scored = {
        f"q{i}": {d: float(len(ranking) - place) for place, d in enumerate(ranking)} for i, ranking in enumerate(run)
    }
    judged = {f"q{i}": own for i, own in enumerate(relevant)}
    ranx_run = ranx.Run(scored)
    ranx.evaluate(ranx.Qrels(judged), ranx_run, names)
    found = query_metrics(run, relevant, names)
    for name in names:
        expected = [ranx_run.scores[name][f"q{i}"] for i in range(len(run))]
        np.testing.assert_allclose(found[name], expected, atol=1e-9)


def test_as_a_module_of_evaluate(runs: tuple[list[list[str]], list[dict[str, int]]], tmp_path: Path) -> None:
    run, relevant = runs
    metric = evaluate.load(str(Path(metrics.__file__).with_name("retrieval")), cache_dir=str(tmp_path))
    references = [{"ids": list(judged), "grades": list(judged.values())} for judged in relevant]
    found = metric.compute(predictions=run, references=references, metrics=["ndcg@10"])["ndcg@10"]
    values = query_metrics(run, relevant, ["ndcg@10"])["ndcg@10"]
    assert found["values"] == pytest.approx(values.tolist())
    assert found["mean"] == pytest.approx(values.mean()) and found["low"] < found["mean"] < found["high"]


def test_broken_runs_are_reported() -> None:
    with pytest.raises(ValueError, match="ranking 0 names a document twice"):
        query_metrics([["a", "a"]], [{"a": 1}])
    with pytest.raises(ValueError, match="query 0 has no relevant document"):
        query_metrics([["a"]], [{"a": 0}])
    with pytest.raises(ValueError, match="accepted: as many of each"):
        query_metrics([["a"]], [{"a": 1}, {"b": 1}])
    for name in ("ndcg", "ndcg@0", "accuracy@5"):
        with pytest.raises(ValueError, match="accepted: recall@k"):
            query_metrics([["a"]], [{"a": 1}], [name])


def test_paired_test() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(100)
    assert paired_test(first, first) == 1.0
    assert paired_test(first + 0.1, first) < 0.001
    assert paired_test(first, rng.permutation(first)) > 0.05
    assert paired_test(np.ones(3), np.zeros(3)) == 2 / 8  # of the eight ways to flip three signs
    with pytest.raises(ValueError, match="the same queries"):
        paired_test(first, first[:5])
