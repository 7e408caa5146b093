"""Which documents a query is trained on: its positives, uniform ones, and the student's own.

A ranker's policy is the distribution it puts over documents, `pi(D|Q) = softmax_D(score)`. On-policy
candidates are drawn from the student's own `pi` over its best documents: the teacher scores what the student finds.

Bias: the listwise loss takes its softmax over the candidates instead of the corpus. Candidates are drawn without
replacement and not re-weighted by how likely they were to be drawn, so the loss over them is a biased estimate of the
loss over the corpus: mass the student puts on documents outside the list is not seen. The bias falls as lists grow, and
on-policy drawing puts the mass that matters into the list. It vanishes when the list is the corpus.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files import read_tensors, write_tensors

DRAWN_FROM = 1000  # documents per query that on-policy candidates are drawn from: the student's best
DOCUMENT_BLOCK = 65_536  # scored at once while they are looked for


def positives_and_uniform(relevant: Sequence[Sequence[int]], corpus_size: int, count: int, seed: int | str) -> Tensor:
    """First candidates of each query: its positives (half the list at most) and uniform documents, all distinct.

    Args:
        relevant: per query the relevant corpus rows; none for a query without labels.
        corpus_size: number of documents `m`.
        count: candidates per query.
        seed: of the draw.

    Returns:
        `(n, count)` int64 corpus rows; positives first.

    Raises:
        ValueError: the corpus is smaller than the list.
    """
    if not 1 <= count <= corpus_size:
        raise ValueError(f"{count} candidates of {corpus_size} documents; accepted: 1 to {corpus_size}")
    rng = random.Random(seed)
    lists = []
    for positives in map(list, relevant):
        kept = rng.sample(positives, min(len(positives), max(1, count // 2)))
        # A draw of count documents outruns the positives among them by at least count - len(kept) others ...
        others = [row for row in rng.sample(range(corpus_size), count) if row not in kept]
        lists.append((kept + others)[:count])
    return torch.tensor(lists)


def best_documents(queries: Tensor, documents: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """The student's best `DRAWN_FROM` documents for each query, of those its teacher has not scored.

    Exact, block by block: no table of queries and the whole corpus is ever held.

    Args:
        queries: `(n, k)`, their vectors.
        documents: `(m, k)`, the corpus's.
        scored: `(n, c)` int64, corpus rows the teacher has scored.

    Returns:
        Scores and corpus rows, `(n, N)` each, on the CPU; a score of `-inf` marks a place without a document.
    """
    scores, rows = queries.new_empty(len(queries), 0), scored.new_empty(len(queries), 0)
    for start in range(0, len(documents), DOCUMENT_BLOCK):
        block = queries @ documents[start : start + DOCUMENT_BLOCK].T
        line, place = ((scored >= start) & (scored < start + block.shape[1])).nonzero(as_tuple=True)
        block[line, scored[line, place].to(block.device) - start] = -torch.inf
        kept = block.topk(min(DRAWN_FROM, block.shape[1]), dim=1)
        scores = torch.cat([scores, kept.values], dim=1)
        rows = torch.cat([rows, kept.indices.cpu() + start], dim=1)
        best = scores.topk(min(DRAWN_FROM, scores.shape[1]), dim=1)
        scores, rows = best.values, rows.gather(1, best.indices.cpu())
    return scores.cpu(), rows


def draw_on_policy(scores: Tensor, rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """New candidates, drawn from the student's distribution over its best documents.

    Drawing without replacement from a softmax is taking the largest of its Gumbel-perturbed logits. Beyond the best
    `DRAWN_FROM` documents the distribution is cut; in smaller corpora it is the student's own.

    Args:
        scores: `(n, N)`, as from `best_documents`.
        rows: `(n, N)` int64, the corpus rows these scores belong to.
        count: new candidates per query.
        generator: seeded source of the draw.

    Returns:
        `(n, count)` int64 corpus rows, distinct.

    Raises:
        ValueError: a query has fewer than `count` documents left.
    """
    left = int((scores > -torch.inf).sum(1).min())
    if not 0 <= count <= left:
        raise ValueError(f"{count} new candidates of {left} documents not scored yet; accepted: 0 to {left}")
    noise = -torch.empty_like(scores).exponential_(generator=generator).log()
    return rows.gather(1, (scores + noise).topk(count, dim=1).indices)


def keep_round(folder: Path, round_: int, documents: Tensor) -> None:
    """Keeps the candidates of a round, `(n, c)` corpus rows, for a run that is interrupted later."""
    write_tensors(_path(folder, round_), {"documents": documents})


def kept_rounds(folder: Path, rounds: int) -> Tensor:
    """The candidates of the first `rounds` rounds of an interrupted run, `(n, c)` corpus rows.

    Raises:
        ValueError: a file of them is missing or is not as it was written.
    """
    return torch.cat([_kept(folder, round_) for round_ in range(rounds)], dim=1)


def _kept(folder: Path, round_: int) -> Tensor:
    path = _path(folder, round_)
    try:
        return read_tensors(path)[0]["documents"]
    except (ValueError, KeyError) as error:
        fault = str(error).partition("; accepted")[0]
        raise ValueError(
            f"candidates of round {round_}, without which the run would end elsewhere: {fault}; accepted: the file as "
            f"it was written. Delete all checkpoints in {folder} that come after the start of that round to draw them "
            "again"
        ) from error


def _path(folder: Path, round_: int) -> Path:
    return folder / f"candidates-{round_:03d}.safetensors"
