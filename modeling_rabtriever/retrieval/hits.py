"""What a search returns."""

from dataclasses import dataclass, field
from typing import Any


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
