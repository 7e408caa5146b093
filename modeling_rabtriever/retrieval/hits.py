"""What a search and a deletion return."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Hit:
    """A document found.

    Args:
        id: of the document.
        score: inner product of query and document, or the fused score of a hybrid search; comparable within a query
            only.
        text: of the document.
        metadata: its other fields.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Deleted(NamedTuple):
    """The result of a deletion.

    Attributes:
        documents: how many were deleted.
        missing: the ids that were not found, in the given order.
    """

    documents: int
    missing: list[str]
