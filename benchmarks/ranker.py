"""Rankings of a task's test queries by every method of a comparison, kept in files as they are made."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.students import TeacherBench
from modeling_rabtriever.evaluation.metrics import query_metrics, rank_documents
from modeling_rabtriever.evaluation.samples import fixed_sample
from modeling_rabtriever.evaluation.systems import reranker_system
from modeling_rabtriever.files import write_json
from modeling_rabtriever.tasks.beir import Split

METRICS = ("success@1", "success@10", "mrr@10", "ndcg@10")
DEPTH = 100  # documents of a ranking that are kept
TEACHER_QUERIES, TEACHER_DEPTH = 100, 10


class Ranker:
    """Ranks every test query once per method; reuses the rankings of an earlier run.

    Args:
        bench: task, teacher and folders.
        folder: where rankings go.
    """

    def __init__(self, bench: TeacherBench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.dev, self.test = bench.task.split("dev"), bench.task.split("test")

    def best(self, method: str, train: Callable[[float], tuple[Callable[[list[str]], Tensor], dict[str, Any]]],
             rates: tuple[float, ...]) -> dict[str, Any]:  # fmt: skip
        """The ranking of test by the rate that is best on dev, and facts about it.

        Saved after each rate; rates of an earlier run are not trained again.

        Args:
            method: its name.
            train: a rate -> a function that scores the corpus for queries, and facts about it.
            rates: to try.
        """
        path = self._path(method)
        best = self.read(method) if path.exists() else {"method": method, "dev": {}}
        for rate in rates:
            if str(rate) in best["dev"]:
                continue
            score, facts = train(rate)
            ranked = rank_documents(score(self.dev.queries), 10)
            on_dev = float(self._values(ranked, self.dev)["ndcg@10"].mean())
            print(f"{self.bench.run.task} {method} {rate:g}: dev nDCG@10 {on_dev:.4f} {facts}", flush=True)
            first = on_dev > max(best["dev"].values(), default=-1.0)
            best["dev"][str(rate)] = on_dev
            if first:
                best |= {"rate": rate, **facts, "ranking": rank_documents(score(self.test.queries), DEPTH)}
            write_json(path, best)
        return best

    def finished(self, method: str, rates: tuple[float, ...]) -> bool:
        """Whether an earlier run has the result of `best` at all rates."""
        return self._path(method).exists() and {str(rate) for rate in rates} <= self.read(method)["dev"].keys()

    def read(self, method: str) -> dict[str, Any]:
        """The result of `best` from an earlier run."""
        found: dict[str, Any] = json.loads(self._path(method).read_text())
        return found

    def values(self, found: Mapping[str, Any], rows: list[int] | None = None) -> dict[str, np.ndarray]:
        """Per-query metrics on test, or on some of its rows."""
        split, ranking = self.test, found["ranking"]
        if rows is not None:
            ranking, split = [ranking[row] for row in rows], split.take(rows)
        return self._values(ranking, split)

    def teacher(self, rankings: list[list[list[int]]]) -> tuple[list[int], dict[str, np.ndarray]]:
        """Rows of test, and the teacher's metrics on them: it re-ranks the first documents of all rankings."""
        size, path = len(self.bench.task.corpus), self.folder / "teacher.json"
        every = size <= DEPTH
        rows = list(range(len(self.test))) if every else sample_rows(self.test, TEACHER_QUERIES)
        if not path.exists():
            reranker = reranker_system(self.bench.reranker, self.bench.task.corpus)
            ranking = []
            if every:
                ranking = rank_documents(reranker.score(self.test.queries), DEPTH)
            else:
                for row in rows:
                    union = sorted({place for ranked in rankings for place in ranked[row][:TEACHER_DEPTH]})
                    assert reranker.score_pairs is not None
                    scores = reranker.score_pairs([self.test.queries[row]], torch.tensor([union]))[0]
                    ranking.append([union[place] for place in scores.argsort(descending=True, stable=True).tolist()])
            write_json(path, {"ranking": ranking})
        return rows, self._values(json.loads(path.read_text())["ranking"], self.test.take(rows))

    def _path(self, method: str) -> Path:
        return self.folder / f"{method.replace(' ', '-').replace(',', '')}.json"

    def _values(self, ranking: list[list[int]], split: Split) -> dict[str, np.ndarray]:
        return query_metrics(ranking, split.relevant, METRICS)


def sample_rows(split: Split, count: int) -> list[int]:
    """Rows of a fixed sample of a split."""
    places = {query_id: row for row, query_id in enumerate(split.query_ids)}
    return [places[query_id] for query_id in fixed_sample(split, count).query_ids]
