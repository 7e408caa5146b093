"""How faithful the student is to its teacher: in order, distribution and states, and what its form allows at best."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from .. import GenerativeRerankerModel, RabtrieverModel

DEPTHS = (1, 5, 10)
STATE_QUERIES = 100  # of a split, whose predicted states are held against the teacher's


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
    first = []
    for scores in (teacher, student):
        ranked = scores.argsort(dim=1, descending=True, stable=True)
        first.append(torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranked[:, :depth], True))
    return float((first[0] & first[1]).sum(1).double().mean() / depth)


def best_rank(matrix: Tensor, rank: int) -> Tensor:
    """The matrix of at most this rank that is nearest in squared error: `(n, m)` -> `(n, m)`."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def state_faithfulness(predicted: Tensor, teacher: Tensor) -> dict[str, Any]:
    """Agreement of the predicted states `h_hat` with the teacher's `h_{Q|D}` over pairs.

    Args:
        predicted: `(p, d)`.
        teacher: `(p, d)`, `p` at least 2.

    Returns:
        `mse`, and `r2_per_dimension`: for each of the `d` numbers the share of its variance over pairs that the
        prediction explains (below 0: worse than their mean); `None` where the teacher's number never changes.

    Raises:
        ValueError: the two differ in shape, or there are fewer than two pairs.
    """
    if predicted.shape != teacher.shape or predicted.dim() != 2 or len(predicted) < 2:
        raise ValueError(f"{tuple(predicted.shape)} and {tuple(teacher.shape)}; accepted: two (p, d), p at least 2")
    predicted, teacher = predicted.double(), teacher.double()
    errors = (predicted - teacher).square().sum(0)
    variation = (teacher - teacher.mean(0)).square().sum(0)
    r2 = [1 - float(e / v) if v > 0 else None for e, v in zip(errors, variation, strict=True)]
    return {"pairs": len(predicted), "mse": float(errors.mean() / len(predicted)), "r2_per_dimension": r2}


@torch.no_grad()
def paired_states(
    teacher: GenerativeRerankerModel,
    student: RabtrieverModel,
    queries: Sequence[str],
    corpus: Sequence[str],
    scores: Tensor,
) -> tuple[Tensor, Tensor]:
    """Predicted and true states of some pairs: for up to `STATE_QUERIES` queries the teacher's best and others.

    Args:
        teacher: the reranker.
        student: distilled from it.
        queries: the split's texts.
        corpus: the documents' texts.
        scores: `(n, m)`, the teacher's.

    Returns:
        `h_hat` and `h_{Q|D}`, each `(pairs, d)` fp32.
    """
    rng = random.Random(13)
    rows = sorted(rng.sample(range(len(queries)), min(STATE_QUERIES, len(queries))))
    drawn = [(row, document) for row in rows for document in rng.sample(range(len(corpus)), min(3, len(corpus)))]
    pairs = sorted({*drawn, *((row, int(scores[row].argmax())) for row in rows)})
    documents = sorted({document for _, document in pairs})
    query_features = student.query_features([queries[row] for row in rows])  # a text stands in several pairs
    document_features = student.document_features([corpus[document] for document in documents])
    predicted, true = [], []
    for start in range(0, len(pairs), 64):
        block = pairs[start : start + 64]
        texts = {"query": [queries[row] for row, _ in block], "document": [corpus[document] for _, document in block]}
        inputs = teacher.processor(**texts).to(teacher.device)
        true.append(teacher(**inputs).hidden_state.float().cpu())
        output = student(
            query_features=query_features[[rows.index(row) for row, _ in block]],
            document_features=document_features[[documents.index(document) for _, document in block]],
        )
        predicted.append(output.hidden_state.cpu())
    return torch.cat(predicted), torch.cat(true)


def faithfulness_line(found: Mapping[str, Any]) -> str:
    """A report's two sentences on how the student follows its teacher."""
    scores, states = found["scores"], found["states"]
    overlap = ", ".join(f"{k}: {value:.2f}" for k, value in scores["top_overlap"].items())
    known = [value for value in states["r2_per_dimension"] if value is not None]
    return (
        f"Faithful to the teacher: Kendall's tau {scores['kendall_tau']:.2f}, overlap of the first {overlap}, "
        f"KL {scores['kl']:.2f} nats per query, R² of scores {scores['r2']:.2f}, where an inner product in "
        f"{scores['best_rank_k']['k']} numbers could reach {scores['best_rank_k']['r2']:.2f}: what is missing is "
        f"{scores['gap_from_form']:.2f} form and {scores['gap_from_training']:.2f} training. "
        f"States of {states['pairs']} pairs: MSE {states['mse']:.3g}, R² per dimension {np.mean(known):.2f} in the "
        f"mean, {np.min(known):.2f} to {np.max(known):.2f}."
    )


def _centred(scores: Tensor) -> Tensor:
    return scores.double() - scores.double().mean(1, keepdim=True)


def _r2(fit: Tensor, truth: Tensor) -> float:
    return 1 - float((fit - truth).square().sum() / truth.square().sum())


def _mean_tau(first: Tensor, second: Tensor) -> float:
    found = [kendalltau(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    return float(np.mean([0.0 if np.isnan(tau) else tau for tau in found]))  # constant scores order nothing
