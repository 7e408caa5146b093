"""A served teacher under evaluation: each pair is asked once, and kept in the folder of the run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..distillation.served_scores import ServedScores
from ..evaluation.labels import TEACHER
from ..evaluation.systems import System
from ..served.teacher import ServedTeacher


def kept_system(teacher: ServedTeacher, queries: Sequence[str], corpus: Sequence[str], folder: Path) -> System:
    """The teacher on these queries and this corpus. Its time is not measured, as most pairs may come from the cache.

    Args:
        teacher: behind a server.
        queries: all that will be ranked.
        corpus: the documents.
        folder: of the cache.

    Raises:
        ValueError: the folder holds scores of another teacher, prompt or text, or the server's answers are not usable.
        ConnectionError: the server does not answer.
    """
    distinct = list(dict.fromkeys(queries))
    row_of = {query: row for row, query in enumerate(distinct)}
    kept = ServedScores(folder, teacher, distinct, corpus)

    def score_pairs(asked: Sequence[str], rows: Tensor) -> Tensor:
        own = torch.tensor([row_of[query] for query in asked])[:, None].expand(rows.shape)
        kept.score(own.flatten(), rows.flatten())
        return kept.logits(own, rows)

    def score(asked: Sequence[str]) -> Tensor:
        return score_pairs(asked, torch.arange(len(corpus)).expand(len(asked), -1))

    return System(TEACHER, score, latency_queries=0, score_pairs=score_pairs, model=teacher)
