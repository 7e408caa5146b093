"""Token ids of many texts, read when they are needed."""

from collections.abc import Callable, Sequence

from ..processing_rabtriever import TokenIds

KEPT = 65_536  # texts whose token ids are kept for the next time


class TokenIdsOf:
    """The token ids of texts; those of the last `KEPT` texts asked for stay in memory. Threads can share it.

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
        kept = self._kept  # nothing is ever taken out of it, only another one put in its place
        if len(kept) + len(rows) > KEPT:
            kept = self._kept = {row: kept[row] for row in rows if row in kept}
        if new := [row for row in dict.fromkeys(rows) if row not in kept]:
            kept.update(zip(new, self._read([self._texts[row] for row in new]), strict=True))
        return [kept[row] for row in rows]
