"""The documents a query is trained on: relevant ones, uniformly drawn ones, and ones the student finds.

A ranker's policy is its distribution over documents, `pi(D|Q) = softmax_D(score)`. On-policy candidates are drawn from
the student's own `pi` over its best documents: the teacher scores what the student finds.

Bias: the listwise loss takes its softmax over the candidates instead of the corpus. Candidates are drawn without
replacement and not re-weighted by how likely they were to be drawn, so the loss over them is a biased estimate of the
loss over the corpus: it ignores the probability that the student gives to documents outside the list. The bias shrinks
as lists grow, on-policy drawing puts the documents with most probability into the list, and there is no bias if the
list is the corpus.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import fault
from ..files import read_tensors, write_tensors
from ..tasks.texts import hashes

DRAWN_FROM = 1000  # on-policy candidates are drawn from this many best documents of a query
DOCUMENT_BLOCK = 65_536  # documents scored at once during that search


def first_rows(documents: Sequence[str]) -> Tensor:
    """For each document the first row that has its text, `(m,)` int64. Texts are compared by their hashes."""
    _, first, place = np.unique(hashes(documents), return_index=True, return_inverse=True)
    return torch.from_numpy(first[place])


def positives_and_uniform(relevant: Sequence[Sequence[int]], corpus_size: int, count: int, seed: int | str) -> Tensor:
    """The first candidates of each query: relevant documents (at most half the list) and uniform ones, all distinct.

    Args:
        relevant: for each query, the relevant corpus rows; none for a query without labels.
        corpus_size: number of documents `m`.
        count: candidates per query.
        seed: of the draw.

    Returns:
        `(n, count)` int64 corpus rows; relevant ones first.

    Raises:
        ValueError: the corpus is smaller than the list.
    """
    if not 1 <= count <= corpus_size:
        raise ValueError(f"{count} candidates of {corpus_size} documents; accepted: 1 to {corpus_size}")
    rng = random.Random(seed)
    lists = []
    for positives in map(list, relevant):
        kept = rng.sample(positives, min(len(positives), max(1, count // 2)))
        # `count` distinct documents hold at least `count - len(kept)` that are not in `kept`.
        others = [row for row in rng.sample(range(corpus_size), count) if row not in kept]
        lists.append((kept + others)[:count])
    return torch.tensor(lists)


def best_documents(queries: Tensor, documents: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """The student's best `DRAWN_FROM` documents for each query, without those the teacher has already scored.

    The search is exact. It goes block by block and never holds scores of the whole corpus.

    Args:
        queries: `(n, k)`, vectors of the queries.
        documents: `(m, k)`, vectors of the corpus.
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

    The largest Gumbel-perturbed logits are a draw from the softmax without replacement. The distribution is truncated
    to the best `DRAWN_FROM` documents; in a smaller corpus it is the student's own distribution.

    Args:
        scores: `(n, N)`, from `best_documents`.
        rows: `(n, N)` int64, the corpus rows of these scores.
        count: new candidates per query.
        generator: random generator of the draw.

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


def keep_round(folder: Path, round_: int, tensors: dict[str, Tensor], run: dict[str, str]) -> None:
    """Saves what a round drew, in case the run is interrupted later; `run` are the settings it depends on."""
    write_tensors(_path(folder, round_), tensors, run)


def kept_rounds(folder: Path, rounds: int, run: dict[str, str]) -> list[dict[str, Tensor]]:
    """The tensors that `keep_round` saved, one dictionary per round.

    Raises:
        ValueError: a file is missing or is not as it was written, or a run with other settings wrote it.
    """
    return [_kept(folder, round_, run) for round_ in range(rounds)]


def _kept(folder: Path, round_: int, run: dict[str, str]) -> dict[str, Tensor]:
    path = _path(folder, round_)
    try:
        tensors, began = read_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"candidates of round {round_}, which the run needs to resume: {fault(error)}; accepted: the file as it "
            f"was written. To draw them again, delete all checkpoints in {folder} from after the start of that round"
        ) from error
    for name, value in run.items():
        if began.get(name) != value:
            known = began.get(name, "none that an earlier version recorded")
            raise ValueError(f"{name} is {value}; accepted to resume the run in {folder}: {known}, as it began")
    return tensors


def _path(folder: Path, round_: int) -> Path:
    return folder / f"candidates-{round_:03d}.safetensors"
