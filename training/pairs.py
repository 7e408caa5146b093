"""Training pairs of the teacher: groups of one relevant document and its negatives, for one query each."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from evaluation.baselines import BM25
from modeling_rabtriever import RabtrieverProcessor
from training.tasks.beir import RetrievalTask, Split


@dataclass(frozen=True)
class PairGroups:
    """`documents[g]` are the corpus rows of group `g`, the relevant one first; `queries[g]` is its query row."""

    queries: list[int]
    documents: list[list[int]]

    def __len__(self) -> int:
        return len(self.queries)


def draw_groups(
    task: RetrievalTask, split: Split, negatives: int | None, hard_fraction: float, hard_depth: int, seed: int
) -> Iterator[tuple[int, list[int]]]:
    """Endless passes over a split: every (query, relevant document) once per pass, in random order, with new negatives.

    Args:
        task: the corpus.
        split: the judged queries.
        negatives: per positive; `None` takes all there are, or as many as the query with the fewest has.
        hard_fraction: chance of each negative to be mined by BM25 (a document that shares words with the query) instead
            of uniform. By chance and not by quota, so that groups differ in what tells their documents apart.
        hard_depth: mined negatives come from the first `hard_depth` of the BM25 ranking. Ties, which are the rule in
            tiny documents, are broken at random.
        seed: of the draw.

    Yields:
        Query row and corpus rows, the relevant one first; all groups have one size. Documents judged relevant for the
        query are never negatives.

    Raises:
        ValueError: a query has fewer documents that are not relevant than negatives are asked for.
    """
    rng = random.Random(seed)
    judged = [(query, document) for query, relevant in enumerate(split.relevant) for document in relevant]
    fewest = len(task.corpus) - max(len(relevant) for relevant in split.relevant)
    count = fewest if negatives is None else negatives
    if not 1 <= count <= fewest:
        raise ValueError(
            f"{count} negatives per positive; accepted: 1 to {fewest}, the documents every query of {task.name} "
            f"{split.name} has that are not relevant"
        )
    hard = _bm25_neighbours(task, split, hard_depth, rng) if count < fewest and hard_fraction > 0 else None
    while True:
        rng.shuffle(judged)
        for query, positive in judged:
            relevant = split.relevant[query]
            mined = [row for row in hard[query] if row not in relevant] if hard is not None else []
            chosen = rng.sample(mined, min(len(mined), sum(rng.random() < hard_fraction for _ in range(count))))
            # Among this many uniform documents at least the missing negatives are neither relevant nor chosen yet.
            drawn = rng.sample(range(len(task.corpus)), count + len(relevant))
            others = [row for row in drawn if row not in relevant and row not in chosen]
            yield query, [positive, *(chosen + others)[:count]]


def pair_dataset(groups: PairGroups, split: Split, documents: list[str], processor: RabtrieverProcessor) -> Dataset:
    """The rows TRL's `SFTTrainer` reads: `input_ids` = prefix + suffix + answer, `labels` = -100 but for the answer.

    Rows of a group follow each other. They are put together when read, so the dataset holds two numbers per pair.
    """
    prefixes, suffixes = processor.document_ids(documents), processor.query_ids(split.queries)
    answers = (processor.false_token_id, processor.true_token_id)
    rows = Dataset.from_dict(
        {
            "query": [query for query, group in zip(groups.queries, groups.documents, strict=True) for _ in group],
            "document": [document for group in groups.documents for document in group],
            "relevant": [place == 0 for group in groups.documents for place in range(len(group))],
        }
    )

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        input_ids, labels = [], []
        for query, document, relevant in zip(batch["query"], batch["document"], batch["relevant"], strict=True):
            prompt, answer = prefixes[document] + suffixes[query], answers[relevant]
            input_ids.append([*prompt, answer])
            labels.append([-100] * len(prompt) + [answer])
        return {"input_ids": input_ids, "labels": labels}

    return rows.with_transform(tokenised)


def _bm25_neighbours(task: RetrievalTask, split: Split, depth: int, rng: random.Random) -> list[list[int]]:
    bm25 = BM25(task.corpus)
    jitter = torch.Generator().manual_seed(rng.randrange(1 << 30))
    neighbours: list[list[int]] = []
    for start in range(0, len(split), 256):
        scores = bm25(split.queries[start : start + 256])
        shuffled = scores + 1e-6 * torch.rand(scores.shape, generator=jitter)
        found = shuffled.topk(min(depth, scores.shape[1])).indices
        neighbours += [[row for row in rows if scores[query, row] > 0] for query, rows in enumerate(found.tolist())]
    return neighbours
