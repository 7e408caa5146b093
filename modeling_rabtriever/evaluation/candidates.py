"""Evaluation on the first documents of BM25, for a corpus that is too large for a reranker, and on a sample of it."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import GenerativeRerankerModel
from ..bm25 import BM25
from ..tasks.beir import RetrievalTask, Split
from .comparison import DEPTH, compare, query_values
from .metrics import Run, rank_documents
from .report import Report
from .samples import among, corpus_sample
from .systems import System, reranker_system

# If only candidates are ranked, a reranker also scores every pair of a sample of this size, for at most this long.
SAMPLE_QUERIES, SAMPLE_DOCUMENTS = 100, 500
SAMPLE_SECONDS = 120


def first_stage(task: RetrievalTask, split: Split, count: int) -> Tensor:
    """The first documents of BM25 for each query, `(n, count)` corpus rows; ties keep the order of the corpus."""
    ranked = rank_documents(BM25(task.corpus)(split.queries), min(count, len(task.corpus)))
    return torch.tensor(ranked)


def only(run: Run, pools: Run) -> Run:
    """A run restricted to each query's candidates."""
    kept = []
    for ranking, pool in zip(run, pools, strict=True):
        allowed = set(pool)
        kept.append([row for row in ranking if row in allowed])
    return kept


def candidate_scores(
    task: RetrievalTask, split: Split, systems: Sequence[System], rows: Tensor, seed: int
) -> tuple[dict[str, Tensor], Report, Report | None]:
    """Scores of every system on the candidates, and reports on the corpus and on a sample of it at a bounded cost.

    Args:
        task: the corpus.
        split: the `n` queries.
        systems: the systems to evaluate.
        rows: `(n, c)`, the candidates.
        seed: of the intervals.

    Returns:
        System -> `(n, m)` scores, minus infinity except for the candidates; the report's `whole`, on the systems that
        score every document anyway; and its `sample`, on all systems with `SAMPLE_QUERIES` queries and
        `SAMPLE_DOCUMENTS` documents, if there is a reranker. If rerankers would take longer than `SAMPLE_SECONDS`, the
        sample only says how long.
    """
    size = len(task.corpus)
    queries, documents = corpus_sample(split.relevant, size, SAMPLE_QUERIES, SAMPLE_DOCUMENTS)
    scores: dict[str, Tensor] = {}
    sampled: dict[str, Tensor] = {}
    runs: dict[str, Run] = {}
    seconds = 0.0
    for system in systems:
        start = time.perf_counter()
        scores[system.name], everything = system.candidate_scores(split.queries, rows, size)
        if everything is None:
            seconds += (time.perf_counter() - start) * len(queries) * len(documents) / rows.numel()
        else:
            sampled[system.name] = everything[queries][:, documents]
            runs[system.name] = rank_documents(everything, DEPTH)
    whole = compare(query_values(runs, split.relevant, size), size, seed)
    # A server is asked for no more pairs than it was said to be.
    rerankers = [system for system in systems if isinstance(system.model, GenerativeRerankerModel)]
    if not rerankers:
        return scores, whole, None
    if seconds > SAMPLE_SECONDS:
        too_long = Report(n=len(queries), documents=len(documents), systems={}, minutes=max(seconds / 60, 1))
        return scores, whole, too_long
    texts = [task.corpus[row] for row in documents]
    for system in rerankers:
        sampled[system.name] = reranker_system(system.model, texts).score([split.queries[row] for row in queries])
    sampled_runs = {name: rank_documents(matrix, DEPTH) for name, matrix in sampled.items()}
    relevant = among([split.relevant[row] for row in queries], documents)
    values = query_values(sampled_runs, relevant, len(documents))
    return scores, whole, compare(values, len(documents), seed)
