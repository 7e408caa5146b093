"""Retrieval metrics as a module of the ecosystem: `evaluate.load("modeling_rabtriever/evaluation/retrieval")`."""

from typing import Any

import datasets
import evaluate

from modeling_rabtriever.evaluation.metrics import TABLE_METRICS, bootstrap_interval, query_metrics

_DESCRIPTION = "recall@k, success@k, mrr@k, ndcg@k and map@k over rankings, with 95% bootstrap intervals over queries."
_INPUTS = """
Args:
    predictions: for each query, the ids of the ranked documents, best first.
    references: for each query, {"ids": relevant documents, "grades": their grades, all above 0}.
    metrics: names such as "ndcg@10"; default: success@1, success@3, success@5, mrr@10.
    seed: of the intervals.
Returns:
    {name: {"mean", "low", "high", "values"}}, values in the order of the queries.
Raises:
    ValueError: an unknown metric, a ranking that names a document twice, ids and grades that differ in number, or a
        query without a relevant document.
"""


class Retrieval(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Metrics over runs, as trec_eval defines them."""

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        labels = {"ids": ids, "grades": datasets.Sequence(datasets.Value("int64"))}
        features = datasets.Features({"predictions": ids, "references": labels})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[dict[str, list[Any]]],
        metrics: tuple[str, ...] = TABLE_METRICS,
        seed: int = 0,
    ) -> dict[str, dict[str, Any]]:
        relevant = [dict(zip(labels["ids"], labels["grades"], strict=True)) for labels in references]
        found = {}
        for name, values in query_metrics(predictions, relevant, metrics).items():
            low, high = bootstrap_interval(values, seed)
            found[name] = {"mean": float(values.mean()), "low": low, "high": high, "values": values.tolist()}
        return found
