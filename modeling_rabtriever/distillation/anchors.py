"""Anchors: texts of the task that the frozen backbone reads beside every query or document, see `RabtrieverConfig`."""

import random
from collections.abc import Callable, Sequence

from .. import RabtrieverProcessor


def drawn_anchors(
    processor: RabtrieverProcessor,
    corpus: Sequence[str],
    queries: Sequence[str],
    seed: int,
    query_anchors: int = 0,
    document_anchors: int = 0,
) -> dict[str, list[list[int]]]:
    """Token ids of texts drawn at random, no two alike: `query_anchors` and `document_anchors` of `RabtrieverConfig`.

    Args:
        processor: the prompt.
        corpus: documents that queries can be read behind.
        queries: judged ones of training, which documents can be read before.
        seed: of the draw.
        query_anchors: how many documents.
        document_anchors: how many queries.

    Raises:
        ValueError: a number is not a whole one of at least 0, or there are fewer different texts.
    """
    return {
        "query_anchors": _drawn("query_anchors", query_anchors, processor.document_ids, corpus, seed),
        "document_anchors": _drawn("document_anchors", document_anchors, processor.query_ids, queries, seed),
    }


def _drawn(
    name: str, count: int, token_ids: Callable[[str], list[list[int]]], texts: Sequence[str], seed: int
) -> list[list[int]]:
    check_count(name, count)
    found: dict[tuple[int, ...], None] = {}
    for row in random.Random(f"{seed}-anchors").sample(range(len(texts)), len(texts)):
        if len(found) == count:
            break
        found |= dict.fromkeys(map(tuple, token_ids(texts[row])))
    if len(found) < count:
        raise ValueError(f"{name} is {count}; accepted: at most {len(found)}, the different texts there are")
    return [list(ids) for ids in found]


def check_count(name: str, count: object) -> None:
    """Raises a ValueError if `count` is no number of anchors."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"{name} is {count!r}; accepted: a whole number of at least 0")
