"""Which documents a query is trained on: its positives, uniform ones, the teacher's best, and the student's own.

A ranker's policy is the distribution it puts over documents, `pi(D|Q) = softmax_D(score / temperature)`. On-policy
candidates are drawn from the student's own `pi` over the whole corpus, so the teacher is asked where the student looks.

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

from modeling_rabtriever.files import read_tensors, write_tensors


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


def sample_from_student(
    scores: Tensor, excluded: Tensor, count: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """New candidates, drawn from the student's distribution over the corpus.

    Drawing without replacement from a softmax is taking the largest of its Gumbel-perturbed logits.

    Args:
        scores: `(n, m)`, the student's scores of the whole corpus.
        excluded: `(n, m)` bool, the documents that may not be drawn.
        count: new candidates per query.
        temperature: above 0; of `softmax(scores / temperature)`; higher explores more.
        generator: seeded source of the draw.

    Returns:
        `(n, count)` int64 corpus rows, distinct and none of them excluded.

    Raises:
        ValueError: a query has fewer than `count` documents that are not excluded.
    """
    _check_left(excluded, count)
    noise = -torch.empty_like(scores).exponential_(generator=generator).log()
    return (scores / temperature + noise).masked_fill(excluded, -torch.inf).topk(count, dim=1).indices


def sample_uniform(excluded: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """New candidates, all documents alike: as `sample_from_student` with equal scores.

    Raises:
        ValueError: a query has fewer than `count` documents that are not excluded.
    """
    _check_left(excluded, count)
    return torch.rand(excluded.shape, generator=generator).masked_fill(excluded, -1.0).topk(count, dim=1).indices


def best_of(documents: Tensor, logits: Tensor, count: int) -> Tensor:
    """The teacher's best of those it was asked about: `(n, c)` corpus rows and `(n, c)` log-odds -> `(n, count)`."""
    return documents.gather(1, logits.topk(count, dim=1).indices)


def outside_pools(pools: Sequence[Sequence[int]] | None, rows: Tensor, corpus_size: int) -> Tensor:
    """Which documents the teacher cannot be asked about.

    Args:
        pools: per query the corpus rows it can be; `None` means the whole corpus.
        rows: `(n,)` int64, the queries wanted.
        corpus_size: number of documents `m`.

    Returns:
        `(n, m)` bool.
    """
    outside = torch.full((len(rows), corpus_size), pools is not None)
    if pools is not None:
        for place, row in enumerate(rows.tolist()):
            outside[place, pools[row]] = False
    return outside


def excluding(excluded: Tensor, documents: Tensor) -> Tensor:
    """`excluded` `(n, m)` with `documents` `(n, c)` excluded too."""
    return excluded.scatter(1, documents, True)


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


def _check_left(excluded: Tensor, count: int) -> None:
    left = int((~excluded).sum(1).min())
    if not 0 <= count <= left:
        raise ValueError(f"{count} new candidates of {left} documents not asked yet; accepted: 0 to {left}")
