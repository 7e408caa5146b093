"""Which texts were seen before: by hashes, at 8 bytes each."""

from array import array
from bisect import bisect_left

import numpy as np

_RECENT = 1 << 20  # hashes in a set, which takes ten times the memory, before they are sorted in


class SeenTexts:
    """A set of texts that only grows. It holds their hashes; a collision needs billions of texts."""

    def __init__(self) -> None:
        self._sorted, self._recent = array("q"), set[int]()

    def add(self, text: str) -> bool:
        """Adds a text, and returns whether it is new."""
        found = hash(text)
        place = bisect_left(self._sorted, found)
        if found in self._recent or (place < len(self._sorted) and self._sorted[place] == found):
            return False
        self._recent.add(found)
        if len(self._recent) == _RECENT:
            recent = np.fromiter(self._recent, np.int64, _RECENT)
            merged = np.concatenate([np.frombuffer(self._sorted, np.int64), recent])
            merged.sort()
            self._sorted, self._recent = array("q", merged.tobytes()), set()
        return True
