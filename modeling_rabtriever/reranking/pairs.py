"""Training pairs of the teacher: groups of one query's relevant document and its negatives."""

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from .. import RabtrieverProcessor
from ..bm25 import BM25
from ..tasks.beir import RetrievalTask, Split
from ..tasks.relevance import Relevance

Group = tuple[int, list[int]]  # row of a query, and corpus rows, the relevant one first


@dataclass
class NegativeArguments:
    """The negatives of a relevant document.

    Raises:
        ValueError: a setting is out of range.
    """

    negatives_per_positive: int | None = field(
        default=7,
        metadata={"help": "Negatives per relevant document; null means all documents that are not relevant."},
    )
    hard_negative_fraction: float = field(
        default=0.5,
        metadata={"help": "Probability that a negative is mined with BM25; the others are drawn uniformly."},
    )
    hard_negative_depth: int = field(
        default=50, metadata={"help": "Mined negatives come from the first documents of the BM25 ranking, this many."}
    )

    def __post_init__(self) -> None:
        if self.negatives_per_positive is not None and self.negatives_per_positive < 1:
            raise ValueError(
                f"negatives_per_positive is {self.negatives_per_positive}; accepted: at least 1, or null for all"
            )
        if not 0 <= self.hard_negative_fraction <= 1:
            raise ValueError(f"hard_negative_fraction is {self.hard_negative_fraction}; accepted: 0 to 1")
        if self.hard_negative_depth < 1:
            raise ValueError(f"hard_negative_depth is {self.hard_negative_depth}; accepted: at least 1")


def negative_count(task: RetrievalTask, split: Split, negatives: NegativeArguments) -> int:
    """Negatives per group: the setting, or as many as the query with the fewest has.

    Raises:
        ValueError: a query has fewer documents that are not relevant than the setting.
    """
    fewest = len(task.corpus) - int(np.diff(Relevance.of(split.relevant).ends).max())
    count = fewest if negatives.negatives_per_positive is None else negatives.negatives_per_positive
    if not 1 <= count <= fewest:
        raise ValueError(
            f"{count} negatives per positive; accepted: 1 to {fewest}, the number of documents that are not relevant "
            f"to every query of {task.name} {split.name}"
        )
    return count


def draw_groups(
    task: RetrievalTask, split: Split, negatives: NegativeArguments, seed: int, count: int | None = None
) -> Iterator[Group]:
    """Endless passes over a split: each (query, relevant document) once per pass, in random order, with new negatives.

    Args:
        task: the corpus.
        split: queries with relevance labels.
        negatives: how many and which. All (`null`) means as many as the query with the fewest has. Whether a negative
            is mined with BM25 (a document that shares words with the query) is random for each one, without a quota, so
            that groups vary. Ties in BM25, frequent in tiny documents, are broken at random.
        seed: of the draw.
        count: negatives per group, if other splits limit them too; default: `negative_count` of this split.

    Yields:
        Query row and corpus rows, the relevant one first; all groups have one size. A document that is relevant to the
        query is never a negative.

    Raises:
        ValueError: a query has fewer documents that are not relevant than the setting.
    """
    rng = random.Random(seed)
    hard_fraction = negatives.hard_negative_fraction
    count = negative_count(task, split, negatives) if count is None else count
    labels = Relevance.of(split.relevant)
    labelled = array("q", range(len(labels.rows)))
    mine = negatives.negatives_per_positive is not None and hard_fraction > 0
    hard = _bm25_neighbours(task, split, negatives.hard_negative_depth, rng) if mine else None
    while True:
        rng.shuffle(labelled)
        for label in labelled:
            query, positive = int(labels.ends.searchsorted(label, "right")) - 1, int(labels.rows[label])
            relevant = labels[query]
            mined = [row for row in hard[query] if row not in relevant] if hard is not None else []
            mined_count = len([draw for draw in range(count) if rng.random() < hard_fraction])
            chosen = rng.sample(mined, min(len(mined), mined_count))
            # This many uniform documents always include enough that are neither relevant nor chosen yet.
            drawn = rng.sample(range(len(task.corpus)), count + len(relevant))
            others = [row for row in drawn if row not in relevant and row not in chosen]
            yield query, [positive, *(chosen + others)[:count]]


def pair_dataset(
    groups: Sequence[Group], split: Split, documents: Sequence[str], processor: RabtrieverProcessor
) -> Dataset:
    """The rows TRL's `SFTTrainer` reads: `input_ids` = prefix + suffix + answer, `labels` = -100 except for the answer.

    `prefix_length` is where the query begins. Rows of a group are consecutive. Each row is tokenised when it is read,
    so the dataset holds three numbers per pair.
    """
    read, asked = sorted({row for _, group in groups for row in group}), sorted({query for query, _ in groups})
    prefixes = dict(zip(read, processor.document_ids([documents[row] for row in read]), strict=True))
    suffixes = dict(zip(asked, processor.query_ids([split.queries[row] for row in asked]), strict=True))
    rows = Dataset.from_dict(
        {
            "query": [query for query, group in groups for _ in group],
            "document": [document for _, group in groups for document in group],
            "relevant": [place == 0 for _, group in groups for place in range(len(group))],
        }
    )

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs: dict[str, list[Any]] = {"input_ids": [], "labels": [], "prefix_length": []}
        for query, document, relevant in zip(batch["query"], batch["document"], batch["relevant"], strict=True):
            answer = processor.true_token_id if relevant else processor.false_token_id
            prompt = prefixes[document] + suffixes[query]
            pairs["input_ids"].append([*prompt, answer])
            pairs["labels"].append([-100] * len(prompt) + [answer])
            pairs["prefix_length"].append(len(prefixes[document]))
        return pairs

    return rows.with_transform(tokenised)


class PairCollator(DataCollatorForLanguageModeling):
    """TRL's right padding, with the lengths of the prefixes."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `labels`, each `(pairs, length)` int64; `prefix_lengths` `(pairs,)` int64."""
        batch = super().torch_call(examples)
        return {**batch, "prefix_lengths": torch.tensor([row["prefix_length"] for row in examples])}


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
