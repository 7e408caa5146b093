"""What a store checks and writes when documents are added."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from .corpus_vectors import CorpusVectors, document_columns
from .documents import Document
from .lance_table import Changes
from .metadata_columns import MetadataFields, cleaned
from .unfinished import Unfinished


def checked_vectors(vectors: Tensor | NDArray[np.float32], count: int, embedding_dim: int) -> NDArray[np.float32]:
    """Vectors of `count` documents as fp32 on the CPU.

    Raises:
        ValueError: they have another shape than `(count, embedding_dim)`, or a number is not finite.
    """
    held = np.asarray(vectors.detach().float().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
    if held.shape != (count, embedding_dim):
        raise ValueError(
            f"vectors have shape {held.shape}; accepted: ({count}, {embedding_dim}), the number of documents and the "
            "width of this store's vectors"
        )
    if not np.isfinite(held).all():
        raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
    return held


def distinct_documents(documents: Sequence[Document]) -> list[Document]:
    """Documents as they are stored.

    Raises:
        ValueError: an id is given twice, or a document cannot be stored (`cleaned`).
    """
    held = list(cleaned(documents))
    seen: set[str] = set()
    for document in held:
        if document.id in seen:
            raise ValueError(f"the id {document.id!r} is given twice; accepted: distinct ids")
        seen.add(document.id)
    return held


def upsert(changes: Changes, documents: Sequence[Document], vectors: NDArray[np.float32]) -> None:
    """Adds documents with their stored vectors `(m, width)` to a table, and replaces those with the same ids."""
    schema = changes.table.schema
    fields = MetadataFields(schema)
    for document in documents:
        fields.add(document)
    rows = pa.table({**document_columns(documents, vectors), **fields.columns(documents)})
    changes.delete_duplicates()
    changes.fit(rows)
    changes.upsert(rows)


def check_corpus(corpus: CorpusVectors, schema: pa.Schema | None) -> None:
    """Reads a whole corpus, to find broken shards and metadata that does not fit before anything is written."""
    fields = MetadataFields(schema)
    for shard in corpus:
        for document in shard.documents:
            fields.add(document)


def part(corpus: CorpusVectors, added: int) -> Unfinished:
    """The record of a corpus of which `added` documents are in the store."""
    return Unfinished(str(corpus.folder.resolve()), added, len(corpus))
