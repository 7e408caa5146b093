"""What a store writes when documents are added."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..identity import same_encoder, shown
from .axes import check_dim, principal_axes
from .corpus_vectors import CorpusVectors, Shard, document_columns
from .documents import Document
from .lance_table import Changes, StoreTable, write_lock
from .metadata_columns import MetadataFields
from .unfinished import Unfinished, note_unfinished


def upsert(table: StoreTable, documents: Sequence[Document], vectors: NDArray[np.float32]) -> None:
    """Adds checked documents with their vectors `(m, embedding_dim)`, and replaces those with the same ids."""
    stored = table.shortened(torch.from_numpy(vectors)).numpy()
    table.change(lambda changes: _upsert(changes, documents, stored))


def add_shards(table: StoreTable, corpus: CorpusVectors) -> None:
    """Upserts the checked shards of a corpus, and notes in the store's folder how many of its documents are there."""
    added = 0
    for shard in corpus:
        with table.lock:
            if not added:
                note_unfinished(table.folder, part(corpus, 0))
            upsert(table, shard.documents, shard.vectors)
            added += len(shard.documents)
            note_unfinished(table.folder, part(corpus, added))


def _upsert(changes: Changes, documents: Sequence[Document], vectors: NDArray[np.float32]) -> None:
    schema = changes.table.schema
    fields = MetadataFields(schema)
    for document in documents:
        fields.add(document)
    rows = pa.table({**document_columns(documents, vectors), **fields.columns(documents)})
    changes.delete_duplicates()
    changes.fit(rows)
    changes.upsert(rows)


def checked_shards(corpus: CorpusVectors, schema: pa.Schema | None) -> Iterator[Shard]:
    """The shards of a corpus, to find broken ones and metadata that does not fit before anything is written."""
    fields = MetadataFields(schema)
    for shard in corpus:
        for document in shard.documents:
            fields.add(document)
        yield shard


def check_corpus(table: StoreTable, corpus: CorpusVectors) -> None:
    """Checks that all of a corpus can be added.

    Raises:
        ValueError: another model encoded it, a shard is broken, or a metadata field has another type than in the store.
    """
    if not same_encoder(corpus.model, table.model):
        raise ValueError(
            f"{corpus.folder} was encoded by the model {shown(corpus.model)}, the store by {shown(table.model)}; "
            "accepted: vectors of the store's model"
        )
    deque(checked_shards(corpus, table.latest().schema), maxlen=0)


def make_store(folder: Path, corpus: CorpusVectors, dim: int | None) -> bool:
    """Makes an empty store for a corpus, noted as unfinished, unless the folder holds one.

    Args:
        folder: of the store.
        corpus: that will be added.
        dim: how many numbers of each vector to keep, along the corpus' principal axes; `None` keeps all as they are.

    Returns:
        Whether this call made it.

    Raises:
        ValueError: `dim` is out of range, or a shard is broken or holds metadata that does not fit.
    """
    if dim is not None:
        check_dim(dim, corpus.embedding_dim)
    if StoreTable.exists(folder):
        return False
    shards = checked_shards(corpus, None)
    axes = None if dim is None else principal_axes((shard.vectors for shard in shards), dim)
    deque(shards, maxlen=0)  # reads what is left
    folder.mkdir(parents=True, exist_ok=True)
    with write_lock(folder):
        if StoreTable.exists(folder):  # another process has made it meanwhile
            return False
        note_unfinished(folder, part(corpus, 0))
        StoreTable.make(folder, corpus.model, corpus.embedding_dim, axes)
    return True


def part(corpus: CorpusVectors, added: int) -> Unfinished:
    """The record of a corpus of which `added` documents are in the store."""
    return Unfinished(str(corpus.folder.resolve()), added, len(corpus))
