"""Where a corpus is too large for a reranker: BM25's first documents, and what is known of the corpus then."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ..bm25 import BM25
from ..tasks.beir import RetrievalTask, Split
from .comparison import DEPTH, compare, query_values
from .metrics import Run, rank_documents
from .report import Report
from .samples import among, corpus_sample
from .systems import System, reranker_system

# Of a split and its corpus, on which a reranker scores every pair where candidates are ranked.
SAMPLE_QUERIES, SAMPLE_DOCUMENTS = 100, 500
SAMPLE_SECONDS = 120  # and for how long


def first_stage(task: RetrievalTask, split: Split, count: int) -> Tensor:
    """BM25's first documents of each query, `(n, count)` corpus rows; equal scores in the order of the corpus."""
    ranked = rank_documents(BM25(task.corpus)(split.queries), min(count, len(task.corpus)))
    return torch.tensor(ranked)


def only(run: Run, pools: Run) -> Run:
    """A run without the documents that are not among each query's candidates."""
    return [[row for row in ranking if row in pool] for ranking, pool in zip(run, map(set, pools), strict=True)]


def candidate_scores(
    task: RetrievalTask, split: Split, systems: Sequence[System], rows: Tensor, seed: int
) -> tuple[dict[str, Tensor], Report, Report | None]:
    """Every system on the candidates, and what can be said of the corpus at a bounded price.

    Args:
        task: the corpus.
        split: the `n` queries.
        systems: what ranks.
        rows: `(n, c)`, the candidates.
        seed: of the intervals.

    Returns:
        System -> `(n, m)` scores, minus infinity but for the candidates; the report's `whole`, of the systems that
        score every document anyway; and its `sample`, of all systems on `SAMPLE_QUERIES` queries and
        `SAMPLE_DOCUMENTS` documents, if there is a reranker. Where rerankers would take longer than `SAMPLE_SECONDS`
        the sample says how long instead.
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
    rerankers = [system for system in systems if system.score_pairs is not None]
    if not rerankers:
        return scores, whole, None
    if seconds > SAMPLE_SECONDS:
        too_long = Report(n=len(queries), documents=len(documents), systems={}, minutes=max(seconds / 60, 1))
        return scores, whole, too_long
    texts = [task.corpus[row] for row in documents]
    for system in rerankers:
        sampled[system.name] = reranker_system(system.model, texts).score([split.queries[row] for row in queries])
    sampled_runs = {system.name: rank_documents(sampled[system.name], DEPTH) for system in systems}
    relevant = among([split.relevant[row] for row in queries], documents)
    values = query_values(sampled_runs, relevant, len(documents))
    return scores, whole, compare(values, len(documents), seed)
