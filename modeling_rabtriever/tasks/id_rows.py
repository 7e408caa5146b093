"""Finds ids among millions of ids by sorted hashes, at 16 bytes per id."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .texts import hashes


class IdRows:
    """The row of each id.

    Args:
        ids: distinct ones.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        found = hashes(ids)
        self.ids, self._order = ids, found.argsort()
        self._sorted = found[self._order]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, asked: Sequence[str]) -> NDArray[np.int64]:
        """The rows of some ids, `(len(asked),)`; -1 for an id that is not there."""
        wanted = hashes(asked)
        if not len(self._sorted):
            return np.full(len(asked), -1)
        rows = self._order[self._sorted.searchsorted(wanted).clip(max=len(self._sorted) - 1)]
        same = [self.ids[row] == id_ for row, id_ in zip(rows.tolist(), asked, strict=True)]
        return np.where(same, rows, -1)
