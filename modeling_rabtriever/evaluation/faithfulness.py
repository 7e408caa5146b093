"""How closely the student follows its teacher, in order and distribution, and how closely it could at best."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

DEPTHS = (1, 5, 10)


def score_faithfulness(teacher: Tensor, student: Tensor, embedding_dim: int) -> dict[str, Any]:
    """Agreement of two score matrices of the same queries and corpus, as means over queries.

    A constant added to all scores of a query does not change its ranking, so both matrices are centred by query first.

    The student's scores are inner products of `k`-dimensional vectors, so its matrix has rank `k` at most (centring may
    add one). `best_rank_k` is how well any matrix of rank `k` could fit the teacher's (its truncated singular value
    decomposition, Eckart-Young), with freely chosen vectors for these queries. The gap of that fit comes from the form
    of the score; the rest of the student's gap comes from training. If `k` is at least the rank of the teacher's
    matrix, the form causes no gap.

    Args:
        teacher: `(n, m)` log-odds.
        student: `(n, m)` scores.
        embedding_dim: the index width `k`.

    Returns:
        `kendall_tau` (tau-b), `top_overlap` (for each depth, the share of the teacher's first documents that are among
        the student's), `kl` (nats; reverse, over the corpus, temperature 1), `r2` of the student's scores and of the
        best fit, and `gap_from_form`, `gap_from_training`: two parts of `1 - r2`.

    Raises:
        ValueError: the two differ in shape, a score is not finite, or the corpus has only one document.
    """
    if teacher.dim() != 2 or teacher.shape != student.shape or teacher.shape[1] < 2:
        raise ValueError(
            f"teacher {tuple(teacher.shape)} and student {tuple(student.shape)}; accepted: two (n, m) with m above 1"
        )
    if not (torch.isfinite(teacher).all() and torch.isfinite(student).all()):
        raise ValueError("scores hold NaN or infinity; accepted: finite scores")
    teacher, student = _centred(teacher), _centred(student)
    log_p, log_q = student.log_softmax(1), teacher.log_softmax(1)
    fit, best = _r2(student, teacher), _r2(best_rank(teacher, embedding_dim), teacher)
    return {
        "n": len(teacher),
        "kendall_tau": _mean_tau(teacher, student),
        "top_overlap": {str(k): top_overlap(teacher, student, k) for k in DEPTHS if k <= teacher.shape[1]},
        "kl": float((log_p.exp() * (log_p - log_q)).sum(1).mean()),
        "r2": fit,
        "best_rank_k": {"k": embedding_dim, "r2": best},
        "gap_from_form": 1 - best,
        "gap_from_training": best - fit,
    }


def top_overlap(teacher: Tensor, student: Tensor, depth: int) -> float:
    """Mean share of the teacher's first `depth` documents that are among the student's: two `(n, m)` -> 0 to 1."""
    both = _among_first(teacher, depth) & _among_first(student, depth)
    return float(both.sum(1).double().mean() / depth)


def best_rank(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of at most this rank, by squared error: `(n, m)` -> `(n, m)`."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def faithfulness_line(found: Mapping[str, Any]) -> str:
    """The sentences of a report on how closely the student follows its teacher."""
    scores = found["scores"]
    overlap = ", ".join(f"{k}: {value:.2f}" for k, value in scores["top_overlap"].items())
    return (
        f"Faithful to the teacher: Kendall's tau {scores['kendall_tau']:.2f}, overlap of the first {overlap}, "
        f"KL {scores['kl']:.2f} nats per query, R² of scores {scores['r2']:.2f}. An inner product of "
        f"{scores['best_rank_k']['k']} dimensions could reach R² {scores['best_rank_k']['r2']:.2f}: the form of the "
        f"score costs {scores['gap_from_form']:.2f}, training {scores['gap_from_training']:.2f}."
    )


def _among_first(scores: Tensor, depth: int) -> Tensor:
    ranked = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranked[:, :depth], True)


def _centred(scores: Tensor) -> Tensor:
    return scores.double() - scores.double().mean(1, keepdim=True)


def _r2(fit: Tensor, truth: Tensor) -> float:
    return 1 - float((fit - truth).square().sum() / truth.square().sum())


def _mean_tau(first: Tensor, second: Tensor) -> float:
    found = [kendalltau(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    return float(np.mean([0.0 if np.isnan(tau) else tau for tau in found]))  # constant scores order nothing
