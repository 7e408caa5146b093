"""How faithful the student is to its teacher: in order and distribution, and what its form allows at best."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

DEPTHS = (1, 5, 10)


def score_faithfulness(teacher: Tensor, student: Tensor, embedding_dim: int) -> dict[str, Any]:
    """Agreement of two score matrices of the same queries and corpus, as means over queries.

    A number added to all scores of a query ranks nothing, so both matrices are centred by query first.

    The student's scores are inner products in `k` numbers, so its matrix has rank `k` at most (centring may add one).
    `best_rank_k` is how well any matrix of rank `k` could fit the teacher's (its truncated singular value
    decomposition, Eckart-Young), the vectors of these queries chosen freely: what is missing there is owed to the form,
    what the student misses beyond it to training. With `k` at or above the rank of the matrix the form owes nothing.

    Args:
        teacher: `(n, m)` log-odds.
        student: `(n, m)` scores.
        embedding_dim: the index width `k`.

    Returns:
        `kendall_tau` (tau-b), `top_overlap` (per depth the share of the teacher's first that are among the student's),
        `kl` (nats; reverse, over the corpus, temperature 1), `r2` of the student's scores and of the best fit, and
        `gap_from_form`, `gap_from_training`: two parts of `1 - r2`.

    Raises:
        ValueError: the two differ in shape, a score is not finite, or the corpus has one document.
    """
    if teacher.dim() != 2 or teacher.shape != student.shape or teacher.shape[1] < 2:
        raise ValueError(
            f"teacher {tuple(teacher.shape)} and student {tuple(student.shape)}; accepted: two (n, m) with m above 1"
        )
    if not (torch.isfinite(teacher).all() and torch.isfinite(student).all()):
        raise ValueError("scores hold NaN or infinity; accepted: finite scores")
    teacher, student = (scores.double() - scores.double().mean(1, keepdim=True) for scores in (teacher, student))
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
    first = []
    for scores in (teacher, student):
        ranked = scores.argsort(dim=1, descending=True, stable=True)
        first.append(torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranked[:, :depth], True))
    return float((first[0] & first[1]).sum(1).double().mean() / depth)


def best_rank(matrix: Tensor, rank: int) -> Tensor:
    """The matrix of at most this rank that is nearest in squared error: `(n, m)` -> `(n, m)`."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def faithfulness_line(found: Mapping[str, Any]) -> str:
    """A report's sentence on how the student follows its teacher."""
    scores = found["scores"]
    overlap = ", ".join(f"{k}: {value:.2f}" for k, value in scores["top_overlap"].items())
    return (
        f"Faithful to the teacher: Kendall's tau {scores['kendall_tau']:.2f}, overlap of the first {overlap}, "
        f"KL {scores['kl']:.2f} nats per query, R² of scores {scores['r2']:.2f}, where an inner product in "
        f"{scores['best_rank_k']['k']} numbers could reach {scores['best_rank_k']['r2']:.2f}: what is missing is "
        f"{scores['gap_from_form']:.2f} form and {scores['gap_from_training']:.2f} training."
    )


def _r2(fit: Tensor, truth: Tensor) -> float:
    return 1 - float((fit - truth).square().sum() / truth.square().sum())


def _mean_tau(first: Tensor, second: Tensor) -> float:
    found = [kendalltau(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    return float(np.mean([0.0 if np.isnan(tau) else tau for tau in found]))  # constant scores order nothing
