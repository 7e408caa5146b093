"""Finds ids among millions of ids by sorted hashes, at 16 bytes per id."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class IdRows:
    """The row of each id.

    Args:
        ids: distinct ones.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        hashes = _hashes(ids)
        self.ids, self._order = ids, hashes.argsort()
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, asked: Sequence[str]) -> NDArray[np.int64]:
        """The rows of some ids, `(len(asked),)`; -1 for an id that is not there."""
        wanted = _hashes(asked)
        if not len(self._sorted):
            return np.full(len(asked), -1)
        rows = self._order[self._sorted.searchsorted(wanted).clip(max=len(self._sorted) - 1)]
        same = [self.ids[row] == id_ for row, id_ in zip(rows.tolist(), asked, strict=True)]
        return np.where(same, rows, -1)


def _hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, texts), np.int64, len(texts))
