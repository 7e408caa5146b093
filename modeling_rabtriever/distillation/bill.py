"""What a distillation asks of its teacher, known before the first pair is scored."""

from collections.abc import Sequence

from ..processing_rabtriever import RabtrieverProcessor
from .distillation_config import RabtrieverDistillationConfig


def teacher_bill(
    config: RabtrieverDistillationConfig,
    queries: Sequence[str],
    documents: Sequence[str],
    processor: RabtrieverProcessor | None,
) -> str:
    """The teacher's work in one line: pairs and, if it is a generative reranker, tokens.

    The pairs are exact; pairs that the cache already has are among them. Which documents are read depends on the
    student, so their tokens are those of documents of mean length.

    Args:
        config: `candidates` is the number of documents per query.
        queries: those that the training's steps come to (`trained_rows`).
        documents: the corpus.
        processor: of the teacher's prompt; `None` if it has none.
    """
    pairs = len(queries) * config.candidates
    read = f"the teacher reads {pairs:,} pairs ({len(queries):,} queries x {config.candidates} documents)"
    if processor is None:
        return read
    suffixes = config.candidates * sum(map(len, processor.query_ids(queries)))
    prefix = sum(map(len, processor.document_ids(documents))) / len(documents)
    whole, once = (suffixes + round(count * prefix) for count in (pairs, min(pairs, len(documents))))
    return (
        f"{read}, about {whole:,} tokens of prompts, of which about {once:,} are computed if every document is read "
        f"once, and writes {pairs:,} tokens"
    )
