"""Relevance labels of many queries: three arrays instead of a dictionary per query."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Relevance(Sequence[Mapping[int, int]]):
    """For each query its relevant documents: corpus row -> grade. A query's dictionary is made when it is read.

    It compares equal to any sequence of the same dictionaries.

    Args:
        ends: `(n + 1,)` int64, where the documents of each query begin; the last number is their count.
        rows: int64, corpus rows.
        grades: int32, at least 1.

    Examples:
        >>> from modeling_rabtriever.tasks.relevance import Relevance
        >>> Relevance.of([{3: 1, 5: 2}, {}])[0]
        {3: 1, 5: 2}
    """

    def __init__(self, ends: NDArray[np.int64], rows: NDArray[np.int64], grades: NDArray[np.int32]) -> None:
        self.ends, self.rows, self.grades = ends, rows, grades

    @classmethod
    def of(cls, labels: Iterable[Mapping[int, int]]) -> "Relevance":
        """The labels of these dictionaries."""
        if isinstance(labels, Relevance):
            return labels
        ends, rows, grades = array("q", [0]), array("q"), array("i")
        for own in labels:
            rows.extend(own)
            grades.extend(own.values())
            ends.append(len(rows))
        return cls(np.array(ends, np.int64), np.array(rows, np.int64), np.array(grades, np.int32))

    def with_unlabelled(self, count: int) -> "Relevance":
        """These labels, then those of `count` queries without any."""
        return Relevance(np.concatenate([self.ends, np.full(count, self.ends[-1])]), self.rows, self.grades)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, row: int) -> dict[int, int]: ...
    @overload
    def __getitem__(self, row: slice) -> list[dict[int, int]]: ...
    def __getitem__(self, row: int | slice) -> dict[int, int] | list[dict[int, int]]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        place = range(len(self))[row]
        own = slice(self.ends[place], self.ends[place + 1])
        return dict(zip(self.rows[own].tolist(), self.grades[own].tolist(), strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == labels for own, labels in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return f"Relevance of {len(self):,} queries, {len(self.rows):,} labels"
