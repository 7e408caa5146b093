"""A store of document vectors on disk: upsert, delete, filter, search. It is a LanceDB table; no server runs.

Every change makes a version. Readers keep the version they opened until they `refresh`, even while a writer appends.
Writers take turns, across processes and threads.

<folder>/documents.lance        the table
<folder>/approximate-N.*        an approximate index of version N
<folder>/writing.lock           held while the store is changed
<folder>/distinct.json          the version that is known to have one row per id
<folder>/unfinished.json        partly added corpora; only if there are any
"""

import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor

from ..identity import same_encoder, shown
from .approximate import PROBES, has_index
from .corpus_vectors import CorpusVectors, document_columns
from .documents import Document
from .lance_table import Changes, StoreTable, write_lock
from .metadata_columns import MetadataFields, cleaned
from .snapshot import Hit, Snapshot
from .unfinished import Unfinished, UnfinishedStoreWarning, note_unfinished, read_unfinished


class Deleted(NamedTuple):
    """The result of a deletion.

    Attributes:
        documents: how many were deleted.
        missing: the ids that were not found, in the given order.
    """

    documents: int
    missing: list[str]


class VectorStore:
    """Documents with vectors of one model, in a folder. Threads may share it for searches and changes.

    Args:
        folder: of the store.
        model: fingerprint (`encoder_fingerprint`) of the student that will encode the queries; `None` skips the
            check.
        precision: of the vectors while they are searched exactly, see `ExactIndex`.
        device: where they are searched.

    Raises:
        ValueError: the folder holds no store, a broken one, or one with vectors of another model.
    """

    def __init__(
        self, folder: str | Path, model: str | None = None, precision: str = "float32", device: str = "cpu"
    ) -> None:
        self.folder, self._precision, self._device = Path(folder), precision, device
        self._table = StoreTable(self.folder)
        self.model, self.embedding_dim = self._table.model, self._table.embedding_dim
        if model is not None:
            self.check_model(model)
        self._refreshing = threading.Lock()
        self.refresh()

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether the folder holds a store."""
        return StoreTable.exists(Path(folder))

    @classmethod
    def create(cls, folder: str | Path, model: str, embedding_dim: int, **options: Any) -> "VectorStore":
        """An empty store; `options` are those of the constructor.

        Raises:
            ValueError: the folder already holds a store.
            OSError: it cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder):
            StoreTable.make(folder, model, embedding_dim)
        return cls(folder, model, **options)

    def check_model(self, model: str) -> None:
        """Raises a ValueError if the fingerprint `model` is not that of the student that made the vectors."""
        if not same_encoder(model, self.model):
            raise ValueError(
                f"{self.folder} holds vectors of the model {shown(self.model)}, this model is {shown(model)}: scores "
                "would mean nothing; accepted: the model that encoded the corpus"
            )

    def __len__(self) -> int:
        """Documents in the version that is read."""
        return len(self._snapshot)

    @property
    def unfinished(self) -> list[Unfinished]:
        """Corpora of which this store holds only a part, because the process that added them ended early."""
        return read_unfinished(self.folder)

    @property
    def has_index(self) -> bool:
        """Whether an approximate index was built, of this version or an older one."""
        return has_index(self.folder)

    def refresh(self) -> None:
        """Switches to the newest version, which includes the changes of other processes."""
        with self._refreshing:
            self._snapshot = Snapshot(self._table, self._precision, self._device)

    def upsert(self, documents: Sequence[Document], vectors: Tensor | NDArray[np.float32]) -> None:
        """Adds documents, and replaces those whose id the store already holds.

        Args:
            documents: with distinct ids. NaN in metadata is a missing value.
            vectors: `(m, k)` of the store's model.

        Raises:
            ValueError: the vectors have another width, an id is given twice, a number is not finite, or a metadata
                field has another type than in the store. The store is left unchanged.
            OSError: it cannot be written.
        """
        held = np.asarray(vectors.detach().float().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
        if held.shape != (len(documents), self.embedding_dim):
            raise ValueError(
                f"vectors have shape {held.shape}; accepted: ({len(documents)}, {self.embedding_dim}), the number of "
                "documents and the width of this store's vectors"
            )
        if not np.isfinite(held).all():
            raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
        documents = list(cleaned(documents))
        seen: set[str] = set()
        for document in documents:
            if document.id in seen:
                raise ValueError(f"the id {document.id!r} is given twice; accepted: distinct ids")
            seen.add(document.id)
        if documents:
            self._table.change(lambda changes: _upsert(changes, documents, held))
            self.refresh()

    def add_corpus(self, corpus: CorpusVectors) -> None:
        """Upserts an encoded corpus, shard by shard. The store is marked as unfinished until all shards are added.

        Raises:
            ValueError: another model encoded the corpus, a shard is broken, or a metadata field has another type than
                in the store. The store is left unchanged.
            OSError: the store cannot be written.
        """
        if not same_encoder(corpus.model, self.model):
            raise ValueError(
                f"{corpus.folder} was encoded by the model {shown(corpus.model)}, the store by {shown(self.model)}; "
                "accepted: vectors of the store's model"
            )
        _check(corpus, self._table.latest().schema)
        self._add(corpus)

    @classmethod
    def of_corpus(cls, folder: str | Path, corpus: CorpusVectors) -> "VectorStore":
        """Adds an encoded corpus to the store in a folder. Creates the store if it is missing.

        Raises:
            ValueError: as `add_corpus`; no store is created then.
            OSError: the store cannot be written.
        """
        folder, made = Path(folder), False
        if not cls.exists(folder):
            _check(corpus, None)
            folder.mkdir(parents=True, exist_ok=True)
            with write_lock(folder):
                if not cls.exists(folder):  # another process may have made it meanwhile
                    note_unfinished(folder, _part(corpus, 0))
                    StoreTable.make(folder, corpus.model, corpus.embedding_dim)
                    made = True
        store = cls(folder)
        if made:
            store._add(corpus)
        else:
            store.add_corpus(corpus)
        return store

    def delete(self, ids: Iterable[str]) -> Deleted:
        """Deletes the documents with these ids.

        Raises:
            ValueError: `ids` is a string, or holds something other than strings.
            OSError: the store cannot be written.
        """
        if isinstance(ids, str):
            raise ValueError(f"ids is the string {ids!r}; accepted: a list of ids")
        asked = list(dict.fromkeys(ids))
        try:
            column = pa.array(asked, pa.string())
        except (pa.ArrowException, UnicodeError) as error:
            raise ValueError(f"ids cannot be read ({error}); accepted: strings of valid Unicode") from error

        def delete(changes: Changes) -> Deleted:
            there = changes.ids()["id"]
            found = set(there.filter(pc.is_in(there, value_set=column)).to_pylist())
            changes.delete([id_ for id_ in asked if id_ in found])
            return Deleted(len(found), [id_ for id_ in asked if id_ not in found])

        deleted = self._table.change(delete)
        self.refresh()
        return deleted

    def compact(self) -> None:
        """Merges the files of many small changes. This is a change too: an approximate index must be built again.

        Raises:
            OSError: the store cannot be written.
        """
        self._table.change(Changes.compact)
        self.refresh()

    def build_index(self) -> None:
        """Builds an approximate index over all documents, for `search(approximate=True)`.

        It belongs to one version. Build it again after a change, which takes seconds per million documents.

        Raises:
            ValueError: the store is empty.
            OSError: the index cannot be written.
        """
        with self._table.lock:
            self.refresh()
            self._snapshot.build_index()

    def search(
        self,
        queries: Tensor,
        top_k: int = 10,
        where: str | None = None,
        approximate: bool = False,
        probes: int = PROBES,
    ) -> list[list[Hit]]:
        """The best documents of each query, best first. Warns with `UnfinishedStoreWarning` if documents are missing.

        Args:
            queries: `(n, k)` query vectors.
            top_k: documents per query.
            where: an SQL condition on `id`, `text` and metadata fields, such as `"lang = 'en' AND year > 2020"`.
            approximate: whether to search the index of `build_index`; otherwise every document is scored. The vectors
                of an exact search stay in memory for the next one.
            probes: of an approximate search, see `ApproximateIndex.search`.

        Raises:
            ValueError: the condition cannot be read, a setting is out of range, there is no index of this version, or
                the store is broken.
        """
        for corpus in self.unfinished:
            warnings.warn(corpus.warning(self.folder), UnfinishedStoreWarning, stacklevel=2)
        snapshot = self._snapshot  # another thread may refresh meanwhile
        if approximate:
            return snapshot.search_approximately(queries, top_k, where, probes)
        return snapshot.search_exactly(queries, top_k, where)

    def _add(self, corpus: CorpusVectors) -> None:
        added = 0
        for shard in corpus:
            with self._table.lock:
                if not added:
                    note_unfinished(self.folder, _part(corpus, 0))
                self.upsert(shard.documents, shard.vectors)
                added += len(shard.documents)
                note_unfinished(self.folder, _part(corpus, added))


def _upsert(changes: Changes, documents: Sequence[Document], vectors: NDArray[np.float32]) -> None:
    schema = changes.table.schema
    fields = MetadataFields(schema)
    for document in documents:
        fields.add(document)
    rows = pa.table({**document_columns(documents, vectors), **fields.columns(documents)})
    changes.delete_duplicates()
    changes.fit(rows)
    changes.upsert(rows)


def _check(corpus: CorpusVectors, schema: pa.Schema | None) -> None:
    """Reads a whole corpus, to find broken shards and metadata that does not fit before anything is written."""
    fields = MetadataFields(schema)
    for shard in corpus:
        for document in shard.documents:
            fields.add(document)


def _part(corpus: CorpusVectors, added: int) -> Unfinished:
    return Unfinished(str(corpus.folder.resolve()), added, len(corpus))
