"""Token ids of many texts, read when they are needed."""

from collections.abc import Callable, Sequence

from ..processing_rabtriever import TokenIds

KEPT = 65_536  # texts whose token ids are kept for the next time


class TokenIdsOf:
    """The token ids of texts; those of the last `KEPT` texts asked for stay in memory.

    Args:
        read: a processor's method, such as `document_ids`.
        texts: its texts.
    """

    def __init__(self, read: Callable[[Sequence[str]], list[TokenIds]], texts: Sequence[str]) -> None:
        self._read, self._texts = read, texts
        self._kept: dict[int, TokenIds] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, rows: Sequence[int]) -> list[TokenIds]:
        """The token ids of these texts, by their rows."""
        if len(self._kept) + len(rows) > KEPT:
            self._kept = {row: self._kept[row] for row in rows if row in self._kept}
        if new := [row for row in dict.fromkeys(rows) if row not in self._kept]:
            self._kept.update(zip(new, self._read([self._texts[row] for row in new]), strict=True))
        return [self._kept[row] for row in rows]
