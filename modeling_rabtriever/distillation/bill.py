"""What is asked of a teacher, known before the first pair is scored."""

from collections.abc import Callable, Sequence

from ..processing_rabtriever import RabtrieverProcessor

COUNTED_TEXTS = 8192


def teacher_bill(
    candidates: int,
    queries: Sequence[str],
    documents: Sequence[str],
    processor: RabtrieverProcessor | None,
) -> str:
    """The teacher's work in one line: pairs and, if it is a generative reranker, tokens.

    The pairs are exact; pairs that the cache already has are among them. Which documents are read depends on the
    student, so their tokens are those of documents of mean length. Mean lengths are those of evenly spaced texts, about
    `COUNTED_TEXTS` of each side.

    Args:
        candidates: documents per query.
        queries: that are asked; of a training, those that its steps come to (`trained_rows`).
        documents: the corpus.
        processor: of the teacher's prompt; `None` if it has none.
    """
    pairs = len(queries) * candidates
    read = f"the teacher reads {pairs:,} pairs ({len(queries):,} queries x {candidates} documents)"
    if processor is None:
        return read
    suffix, prefix = _mean_length(processor.query_ids, queries), _mean_length(processor.document_ids, documents)
    whole, once = (round(pairs * suffix + count * prefix) for count in (pairs, min(pairs, len(documents))))
    return (
        f"{read}, about {whole:,} tokens of prompts, of which about {once:,} are computed if every document is read "
        f"once, and writes {pairs:,} tokens"
    )


def _mean_length(token_ids: Callable[[list[str]], list[list[int]]], texts: Sequence[str]) -> float:
    counted = [texts[row] for row in range(0, len(texts), max(1, len(texts) // COUNTED_TEXTS))]
    return sum(map(len, token_ids(counted))) / len(counted)
