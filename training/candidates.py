"""Which documents a query is trained on: its positives, uniform ones, and the student's own.

A ranker's policy is the distribution it puts over documents, `pi(D|Q) = softmax_D(score / temperature)`. On-policy
candidates are drawn from the student's own `pi` over the whole corpus, so the teacher is asked where the student looks.

Bias: the listwise loss takes its softmax over the candidates instead of the corpus. Candidates are drawn without
replacement and not re-weighted by how likely they were to be drawn, so the loss over them is a biased estimate of the
loss over the corpus: mass the student puts on documents outside the list is not seen. The bias falls as lists grow, and
on-policy drawing puts the mass that matters into the list. It vanishes when the list is the corpus.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor


def positives_and_uniform(relevant: Sequence[Sequence[int]], corpus_size: int, count: int, seed: int | str) -> Tensor:
    """First candidates of each query: its positives (half the list at most) and uniform documents, all distinct.

    Args:
        relevant: per query the corpus rows judged relevant.
        corpus_size: number of documents `m`.
        count: candidates per query.
        seed: of the draw.

    Returns:
        `(n, count)` int64 corpus rows; positives first.

    Raises:
        ValueError: a query has no positive, or the corpus is smaller than the list.
    """
    if not 1 <= count <= corpus_size:
        raise ValueError(f"{count} candidates per query of a corpus of {corpus_size}; accepted: 1 to {corpus_size}")
    rng = random.Random(seed)
    lists = []
    for query, positives in enumerate(relevant):
        if not positives:
            raise ValueError(f"query {query} has no relevant document; accepted: queries with at least one")
        kept = rng.sample(list(positives), min(len(positives), max(1, count // 2)))
        # A draw of count documents outruns the positives among them by at least count - len(kept) others ...
        others = [row for row in rng.sample(range(corpus_size), count) if row not in kept]
        lists.append((kept + others)[:count])
    return torch.tensor(lists)


def sample_from_student(
    scores: Tensor, asked: Tensor, count: int, on_policy_fraction: float, temperature: float, generator: torch.Generator
) -> Tensor:
    """New candidates: a share drawn from the student's distribution over the corpus, the rest uniformly.

    Drawing without replacement from a softmax is taking the largest of its Gumbel-perturbed logits.

    Args:
        scores: `(n, m)`, the student's scores of the whole corpus.
        asked: `(n, a)` int64, the candidates these queries have already; never drawn again.
        count: new candidates per query.
        on_policy_fraction: 0 to 1; share of `count` drawn from `softmax(scores / temperature)`.
        temperature: above 0; higher explores more.
        generator: seeded source of the draw.

    Returns:
        `(n, count)` int64 corpus rows, distinct from each other and from `asked`.

    Raises:
        ValueError: the corpus has fewer than `count` documents that are not asked yet.
    """
    left = scores.shape[1] - asked.shape[1]
    if not 1 <= count <= left:
        raise ValueError(f"{count} new candidates of {left} documents not asked yet; accepted: 1 to {left}")
    on_policy = round(count * on_policy_fraction)
    noise = -torch.empty_like(scores).exponential_(generator=generator).log()
    perturbed = (scores / temperature + noise).scatter(1, asked, -torch.inf)
    drawn = perturbed.topk(on_policy, dim=1).indices
    uniform = torch.rand(scores.shape, generator=generator).scatter(1, torch.cat([asked, drawn], 1), -1.0)
    return torch.cat([drawn, uniform.topk(count - on_policy, dim=1).indices], dim=1)
