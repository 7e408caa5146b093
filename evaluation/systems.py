"""Everything that ranks, behind one signature: queries in, scores of the whole corpus out."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from evaluation.baselines import BM25, LabelPrior, TfidfLogisticRegression
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from training.tasks.beir import RetrievalTask

# Document tokens whose attention state is kept between calls.
KEPT_TOKENS = 131_072


@dataclass(frozen=True)
class System:
    """A ranker under evaluation.

    Args:
        name: as shown in tables.
        score: queries -> `(n, m)` fp32 scores of the corpus, on the CPU.
        latency_queries: how many single queries its latency is measured on.
    """

    name: str
    score: Callable[[Sequence[str]], Tensor]
    latency_queries: int = 20

    def milliseconds_per_query(self, queries: Sequence[str]) -> float:
        """Median wall time of one query at a time, text in, scores of the whole corpus out; the first is a warm-up."""
        times = []
        for query in queries[: self.latency_queries + 1]:
            start = time.perf_counter()
            self.score([query])
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times[1:] or times)


def baselines(task: RetrievalTask, train_split: str) -> list[System]:
    """Label prior, BM25 and TF-IDF + logistic regression, fitted on the training split."""
    train, size = task.split(train_split), len(task.corpus)
    return [
        System("label prior", LabelPrior(train.relevant, size)),
        System("BM25", BM25(task.corpus)),
        System("TF-IDF + logistic regression", TfidfLogisticRegression(train.queries, train.relevant, size)),
    ]


def reranker_system(reranker: GenerativeRerankerModel, corpus: Sequence[str]) -> System:
    """The teacher over the whole corpus. The documents' attention state is kept if `KEPT_TOKENS` allows it."""
    tokens = sum(map(len, reranker.processor.document_ids(corpus)))
    documents = reranker.prefill(corpus) if tokens <= KEPT_TOKENS else corpus

    def score(queries: Sequence[str]) -> Tensor:
        return reranker.score(queries, documents).cpu()

    return System("teacher", score, latency_queries=5)


def rabtriever_system(student: RabtrieverModel, corpus: Sequence[str]) -> System:
    """The student over the whole corpus: document vectors now, one pass and one matrix product per query."""
    documents = student.encode_document(corpus)
    return System("Rabtriever", lambda queries: student.similarity(student.encode_query(queries), documents).cpu())
