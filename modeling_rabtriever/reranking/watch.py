"""Ranks part of the corpus during a teacher's training: a document that leads its group can still rank low there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import IntervalStrategy, TrainingArguments

from .. import GenerativeRerankerModel
from ..evaluation.metrics import mean_metrics, rank_documents
from ..evaluation.samples import among, corpus_sample
from ..tasks.beir import DEV, RetrievalTask, Split
from ..trainers.processes import say

QUERIES, DOCUMENTS = 64, 256  # at most, so that an evaluation scores 16,384 pairs at most, whatever the corpus
METRICS = ("success@1", "mrr@10")
MANY_PAIRS = 5_000  # at every evaluation; more lead to a warning before training starts
WATCHED = tuple(f"corpus_{name}" for name in METRICS)


@dataclass(frozen=True)
class CorpusWatch:
    """Queries of a split, and the documents to rank for them: the corpus or a part of it.

    Args:
        queries: texts.
        documents: texts; all that are relevant to the queries, and others.
        relevant: for each query, place of a relevant document in `documents` -> grade.
        corpus_size: number of documents in the corpus.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[Mapping[int, int]]
    corpus_size: int

    @torch.no_grad()
    def measure(self, reranker: GenerativeRerankerModel) -> dict[str, float]:
        """The metrics `WATCHED`, from scores of all pairs; each document is read once."""
        training = reranker.backbone.training
        reranker.eval()
        scores = reranker.score(self.queries, self.documents).cpu()
        reranker.backbone.train(training)
        found = mean_metrics(rank_documents(scores, depth=10), self.relevant)
        return {watched: found[name] for watched, name in zip(WATCHED, METRICS, strict=True)}

    def line(self, log: Sequence[Mapping[str, float]]) -> str:
        """One sentence on the last evaluation in a trainer's log, groups and corpus; empty if there is none."""
        found = next((record for record in reversed(log) if f"eval_{WATCHED[0]}" in record), None)
        if found is None:
            return ""
        part = "all" if len(self.documents) == self.corpus_size else f"{len(self.documents):,} of"
        ranked = f"{len(self.queries)} queries, {part} {self.corpus_size:,} documents"
        percent = {name: f"{100 * value:.1f}" for name, value in found.items()}
        return (
            f"On dev a relevant document leads its group for {percent['eval_leads_group']}% of the queries; in the "
            f"corpus ({ranked}) the teacher has R@1 {percent['eval_corpus_success@1']}, MRR@10 "
            f"{percent['eval_corpus_mrr@10']}."
        )


def watched_corpus(task: RetrievalTask, split: Split) -> CorpusWatch:
    """A fixed sample of a split and of the corpus, of at most `QUERIES` queries and `DOCUMENTS` documents."""
    rows, documents = corpus_sample(split.relevant, len(task.corpus), QUERIES, DOCUMENTS)
    part = split.take(rows)
    texts = [task.corpus[row] for row in documents]
    return CorpusWatch(part.queries, texts, among(part.relevant, documents), len(task.corpus))


def say_cost(watch: CorpusWatch, config: TrainingArguments) -> None:
    """Warns if evaluations every few steps score many pairs."""
    pairs = len(watch.queries) * len(watch.documents)
    if config.eval_strategy == IntervalStrategy.STEPS and pairs > MANY_PAIRS:
        say(
            f"Warning: with eval_steps {config.eval_steps:g}, every evaluation scores {pairs:,} pairs with the teacher "
            f"({len(watch.queries)} queries, {len(watch.documents)} documents). On one CPU core, 16,384 pairs took 28 "
            'minutes with 135M parameters. If that is too slow, set eval_strategy to "epoch" or "no".'
        )


def watch_nothing(task: RetrievalTask, config: TrainingArguments) -> None:
    """Turns evaluations off for a task without a dev split, and says so.

    Raises:
        ValueError: a setting needs evaluations.
    """
    if config.load_best_model_at_end:
        raise ValueError(
            f"load_best_model_at_end is true, but {task.name} has no split {DEV!r}; accepted: false, or a dev_split of "
            + ", ".join(task.splits)
        )
    print(f"{task.name} has no split {DEV!r} (it has: {', '.join(task.splits)}): no evaluations during training")
    config.eval_strategy, config.eval_on_start = IntervalStrategy.NO, False
