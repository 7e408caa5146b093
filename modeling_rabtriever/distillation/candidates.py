"""Which documents a query is trained on: its positives, uniform ones, and the student's own.

A ranker's policy is the distribution it puts over documents, `pi(D|Q) = softmax_D(score / temperature)`. On-policy
candidates are drawn from the student's own `pi` over its best documents: the teacher is asked where the student looks.

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


def positives_and_uniform(
    relevant: Sequence[Sequence[int]],
    corpus_size: int,
    count: int,
    seed: int | str,
    pools: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """First candidates of each query: its positives (half the list at most) and uniform documents, all distinct.

    Args:
        relevant: per query the corpus rows judged relevant; none for a query nobody judged.
        corpus_size: number of documents `m`.
        count: candidates per query.
        seed: of the draw.
        pools: per query the corpus rows that may be candidates, without repetition; `None` means the whole corpus.

    Returns:
        `(n, count)` int64 corpus rows; positives first.

    Raises:
        ValueError: none of a query's positives is in its pool, or a pool is smaller than the list.
    """
    rng = random.Random(seed)
    lists = []
    for query, judged in enumerate(relevant):
        pool = range(corpus_size) if pools is None else pools[query]
        if not 1 <= count <= len(pool):
            raise ValueError(
                f"{count} candidates for query {query} of {len(pool)} documents; accepted: 1 to {len(pool)}"
            )
        positives = list(judged) if pools is None else sorted(set(judged) & set(pool))
        if judged and not positives:
            raise ValueError(
                f"query {query} has no relevant document among the documents its teacher scored; accepted: at least one"
            )
        kept = rng.sample(positives, min(len(positives), max(1, count // 2)))
        # A draw of count documents outruns the positives among them by at least count - len(kept) others ...
        others = [row for row in rng.sample(pool, count) if row not in kept]
        lists.append((kept + others)[:count])
    return torch.tensor(lists)


def best_documents(
    queries: Tensor, documents: Tensor, asked: Tensor, pools: Sequence[Sequence[int]] | None = None
) -> tuple[Tensor, Tensor]:
    """The student's best `DRAWN_FROM` documents for each query, of those its teacher was not asked about.

    Exact, block by block: no table of queries and the whole corpus is ever held.

    Args:
        queries: `(n, k)`, their vectors.
        documents: `(m, k)`, the corpus's.
        asked: `(n, c)` int64, corpus rows the teacher was asked about.
        pools: per query the corpus rows the teacher can be asked about; `None` means all.

    Returns:
        Scores and corpus rows, `(n, N)` each, on the CPU; a score of `-inf` marks a place without a document.
    """
    if pools is not None:
        return _best_of_pools(queries, documents, asked, pools)
    scores, rows = queries.new_empty(len(queries), 0), asked.new_empty(len(queries), 0)
    for start in range(0, len(documents), DOCUMENT_BLOCK):
        block = queries @ documents[start : start + DOCUMENT_BLOCK].T
        line, place = ((asked >= start) & (asked < start + block.shape[1])).nonzero(as_tuple=True)
        block[line, asked[line, place].to(block.device) - start] = -torch.inf
        kept = block.topk(min(DRAWN_FROM, block.shape[1]), dim=1)
        scores = torch.cat([scores, kept.values], dim=1)
        rows = torch.cat([rows, kept.indices.cpu() + start], dim=1)
        best = scores.topk(min(DRAWN_FROM, scores.shape[1]), dim=1)
        scores, rows = best.values, rows.gather(1, best.indices.cpu())
    return scores.cpu(), rows


def draw_on_policy(scores: Tensor, rows: Tensor, count: int, temperature: float, generator: torch.Generator) -> Tensor:
    """New candidates, drawn from the student's distribution over its best documents.

    Drawing without replacement from a softmax is taking the largest of its Gumbel-perturbed logits. Beyond the best
    `DRAWN_FROM` documents the distribution is cut; in smaller corpora it is the student's own.

    Args:
        scores: `(n, N)`, as from `best_documents`.
        rows: `(n, N)` int64, the corpus rows these scores belong to.
        count: new candidates per query.
        temperature: above 0; of `softmax(scores / temperature)`; higher explores more.
        generator: seeded source of the draw.

    Returns:
        `(n, count)` int64 corpus rows, distinct.

    Raises:
        ValueError: a query has fewer than `count` documents left.
    """
    _check_left(int((scores > -torch.inf).sum(1).min()), count)
    noise = -torch.empty_like(scores).exponential_(generator=generator).log()
    return rows.gather(1, (scores / temperature + noise).topk(count, dim=1).indices)


def draw_uniform(
    asked: Tensor, corpus_size: int, count: int, seed: int | str, pools: Sequence[Sequence[int]] | None = None
) -> Tensor:
    """New candidates, all documents alike.

    Args:
        asked: `(n, c)` int64, corpus rows that may not be drawn.
        corpus_size: number of documents `m`.
        count: new candidates per query.
        seed: of the draw.
        pools: as in `best_documents`.

    Returns:
        `(n, count)` int64 corpus rows, distinct.

    Raises:
        ValueError: a query has fewer than `count` documents left.
    """
    rng = random.Random(seed)
    lists = []
    for query, known in enumerate(map(set, asked.tolist())):
        pool = range(corpus_size) if pools is None else pools[query]
        # Of count + len(known) documents at least count are not known.
        drawn = rng.sample(pool, min(count + len(known), len(pool)))
        left = [row for row in drawn if row not in known]
        _check_left(len(left), count)
        lists.append(left[:count])
    return torch.tensor(lists, dtype=torch.long).view(len(lists), count)


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


def _best_of_pools(
    queries: Tensor, documents: Tensor, asked: Tensor, pools: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    longest = max(map(len, pools))
    rows = torch.tensor([[*pool, *[-1] * (longest - len(pool))] for pool in pools])
    scores = torch.stack(
        [documents[own.to(documents.device)] @ query for query, own in zip(queries, rows, strict=True)]
    )
    barred = (rows < 0) | (rows.unsqueeze(2) == asked.unsqueeze(1)).any(2)
    return scores.cpu().masked_fill(barred, -torch.inf), rows


def _check_left(left: int, count: int) -> None:
    if not 0 <= count <= left:
        raise ValueError(f"{count} new candidates of {left} documents not asked yet; accepted: 0 to {left}")
