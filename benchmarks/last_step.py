"""A trivial baseline for tasks whose queries are steps: what came most often after the last step."""

import re
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from modeling_rabtriever.evaluation.baselines import LabelPrior
from modeling_rabtriever.evaluation.systems import System
from modeling_rabtriever.tasks.beir import RetrievalTask

NAME = "most frequent after the last step"
_STEPS = "Steps done so far: "
_NUMBER = re.compile(r"(?:^|, )\d+\. ")  # before a step


class AfterLastStep:
    """Documents by how often they are relevant in training after the same last step; ties by the label prior."""

    def __init__(self, queries: Sequence[str], relevant: Sequence[dict[int, int]], corpus_size: int) -> None:
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for query, own in zip(queries, relevant, strict=True):
            rows[last_step(query)].extend(own)
        self._counts = {step: torch.bincount(torch.tensor(own), minlength=corpus_size) for step, own in rows.items()}
        prior = LabelPrior(relevant, corpus_size)([""])[0]
        self._prior = prior / (prior.max() + 1)  # below 1, so it decides ties alone

    def __call__(self, queries: Sequence[str]) -> Tensor:
        """Counts with the prior, `(n, m)`."""
        return torch.stack([self._prior + self._counts.get(last_step(query), 0) for query in queries])


def last_step(query: str) -> str:
    """The last step of a query, `none` before the first."""
    return _NUMBER.split(query.rpartition(_STEPS)[2])[-1]


def last_step_system(task: RetrievalTask) -> list[System]:
    """The baseline, if the task's training queries are steps."""
    train = task.split("train")
    if not all(_STEPS in query for query in train.queries):
        return []
    return [System(NAME, AfterLastStep(train.queries, list(train.relevant), len(task.corpus)))]
