"""A store of document vectors on disk: upsert, delete, filter, search. It is a LanceDB table; no server runs.

Every change makes a version. Readers keep the version they opened until they `refresh`, even while a writer appends.
Writers take turns, across processes and threads.

<folder>/documents.lance        the table
<folder>/axes.safetensors       the principal axes of shortened vectors; only if they are
<folder>/approximate-N.*        an approximate index of version N
<folder>/writing.lock           held while the store is changed
<folder>/distinct.json          the version that is known to have one row per id
<folder>/unfinished.json        partly added corpora; only if there are any
"""

import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .adding import add_shards, check_corpus, make_store, upsert
from .approximate import Tuning, has_index
from .corpus_vectors import CorpusVectors
from .documents import Document
from .hits import Deleted, Hit
from .lance_table import Changes, StoreTable, write_lock
from .snapshot import Snapshot
from .store_checks import check_kept, check_same_model, checked_queries, checked_vectors, distinct_documents, id_column
from .unfinished import Unfinished, UnfinishedStoreWarning, read_unfinished


class VectorStore:
    """Documents with vectors of one model, in a folder. Threads may share it for searches and changes.

    Its methods take whole vectors of `embedding_dim` numbers, of documents and queries. A store with principal axes
    rotates them by itself and keeps the first `dim` numbers.

    Args:
        folder: of the store.
        model: fingerprint (`encoder_fingerprint`) of the student that will encode the queries; `None` skips the
            check.
        precision: of the vectors while they are searched exactly, see `ExactIndex`.
        device: where they are searched.

    Raises:
        ValueError: the folder holds no store, a broken one, or one with vectors of another model.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.retrieval import Document, VectorStore
        >>> store = VectorStore.create("runs/store", model="name of a model", embedding_dim=2)
        >>> documents = [Document("a", "first", {"year": 2024}), Document("b", "second", {"year": 2025})]
        >>> store.upsert(documents, torch.eye(2))  # vectors of that model
        >>> [hit.id for hit in store.search(torch.tensor([[1.0, 0.5]]), where="year > 2024")[0]]
        ['b']
        >>> store.delete(["a", "c"])
        Deleted(documents=1, missing=['c'])
    """

    def __init__(
        self, folder: str | Path, model: str | None = None, precision: str = "float32", device: str = "cpu"
    ) -> None:
        self.folder, self._precision, self._device = Path(folder), precision, device
        self._table = StoreTable(self.folder)
        self.model, self.embedding_dim, self.dim = self._table.model, self._table.embedding_dim, self._table.dim
        if model is not None:
            self.check_model(model)
        self._refreshing = threading.Lock()
        self.refresh()

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether the folder holds a store."""
        return StoreTable.exists(Path(folder))

    @classmethod
    def create(
        cls, folder: str | Path, model: str, embedding_dim: int, axes: Tensor | None = None, **options: Any
    ) -> "VectorStore":
        """An empty store.

        Args:
            folder: of the store; created if missing.
            model: fingerprint of the student.
            embedding_dim: the width `k` of its vectors.
            axes: `(k, dim)` from `principal_axes`, to store `dim` numbers per document; `None` stores all as they are.
            options: those of the constructor.

        Raises:
            ValueError: the folder already holds a store, or the axes are not for vectors of this width.
            OSError: it cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder):
            StoreTable.make(folder, model, embedding_dim, axes)
        return cls(folder, model, **options)

    @property
    def axes(self) -> Tensor | None:
        """The principal axes of a store that keeps shorter vectors, `(embedding_dim, dim)` fp32; `None` otherwise."""
        return self._table.axes

    def check_model(self, model: str) -> None:
        """Raises a ValueError if the fingerprint `model` is not that of the student that made the vectors."""
        check_same_model(self._table, model)

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

    @property
    def has_words(self) -> bool:
        """Whether the version that is read has an index of words."""
        return self._snapshot.has_words

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
        held = checked_vectors(vectors, len(documents), self.embedding_dim)
        documents = distinct_documents(documents)
        if documents:
            upsert(self._table, documents, held)
            self.refresh()

    def add_corpus(self, corpus: CorpusVectors) -> None:
        """Upserts an encoded corpus, shard by shard. The store is marked as unfinished until all shards are added.

        Raises:
            ValueError: another model encoded the corpus, a shard is broken, or a metadata field has another type than
                in the store. The store is left unchanged.
            OSError: the store cannot be written.
        """
        check_corpus(self._table, corpus)
        add_shards(self._table, corpus)
        self.refresh()

    @classmethod
    def of_corpus(cls, folder: str | Path, corpus: CorpusVectors, dim: int | None = None) -> "VectorStore":
        """Adds an encoded corpus to the store in a folder. Creates the store if it is missing.

        Args:
            folder: of the store.
            corpus: what to add.
            dim: how many numbers a new store keeps of each vector, along the principal axes of this corpus; `None`
                keeps the vectors as they are. A store that exists keeps its own axes.

        Raises:
            ValueError: as `add_corpus`, `dim` is out of range, or the store keeps another number; no store is created
                then.
            OSError: the store cannot be written.
        """
        folder = Path(folder)
        made = make_store(folder, corpus, dim)
        store = cls(folder)
        check_kept(folder, store.dim, dim)
        if made:  # and all shards checked
            add_shards(store._table, corpus)
            store.refresh()
        else:
            store.add_corpus(corpus)
        return store

    def delete(self, ids: Iterable[str]) -> Deleted:
        """Deletes the documents with these ids.

        Raises:
            ValueError: `ids` is a string, or holds something other than strings.
            OSError: the store cannot be written.
        """
        asked, column = id_column(ids)
        deleted = Deleted(*self._table.change(lambda changes: changes.delete_known(asked, column)))
        self.refresh()
        return deleted

    def compact(self) -> None:
        """Merges the files of many small changes, and removes files that only versions older than a week use.

        Files of thousands of documents stay as they are: merging them would take the space of a second copy for a week.
        After a merge, an approximate index must be built again.

        Raises:
            OSError: the store cannot be written.
        """
        self._table.change(Changes.compact)
        self.refresh()

    def build_index(self, recall: float | None = None, queries: Tensor | None = None) -> Tuning:
        """Builds an approximate index over all documents, for `search(approximate=True)`.

        It belongs to one version. Build it again after a change, which takes seconds per million documents.

        Args:
            recall: the share of the exact best ten documents that it must find; how many lists a query searches
                follows from it. `None` keeps that of an earlier index; the first has 0.95.
            queries: `(n, k)` query vectors to measure the recall on. `None` asks 256 stored vectors for their
                neighbours, which may be easier than real queries.

        Returns:
            The recall that was measured, and how.

        Raises:
            ValueError: the store is empty, or the recall is not reached; an earlier index is kept.
            OSError: the index cannot be written.
        """
        asked = None if queries is None else self._stored(queries)
        with self._table.lock:
            self.refresh()
            return self._snapshot.build_index(recall, asked)

    @property
    def tuning(self) -> Tuning | None:
        """How the approximate index of the version that is read searches; `None` without one."""
        return self._snapshot.tuning

    def build_words(self) -> None:
        """Builds an index of the words in the documents' texts, for `search_words`; it stays valid after changes.

        Documents that come later are found too, but slowly: build it again after many. If it is not up to date, this is
        a change, so an approximate index must be built again.

        Raises:
            ValueError: no document has a text.
            OSError: the index cannot be written.
        """
        self._table.change(Changes.index_words)
        self.refresh()

    def search_words(self, queries: Sequence[str], top_k: int = 10, where: str | None = None) -> list[list[Hit]]:
        """The best documents of each query by BM25; fewer come back if fewer share a word with it.

        Args:
            queries: texts.
            top_k: documents per query.
            where: an SQL condition, as for `search`.

        Raises:
            ValueError: the condition cannot be read, or there is no index of words.
        """
        return self._snapshot.search_words(queries, top_k, where)

    def search(
        self,
        queries: Tensor,
        top_k: int = 10,
        where: str | None = None,
        approximate: bool = False,
    ) -> list[list[Hit]]:
        """The best documents of each query, best first. Warns with `UnfinishedStoreWarning` if documents are missing.

        Args:
            queries: `(n, k)` query vectors.
            top_k: documents per query.
            where: an SQL condition on `id`, `text` and metadata fields, such as `"lang = 'en' AND year > 2020"`.
            approximate: whether to search the index of `build_index`; otherwise every document is scored. The vectors
                of an exact search stay in memory for the next one.

        Raises:
            ValueError: the condition cannot be read, a setting is out of range, there is no index of this version, or
                the store is broken.
        """
        for corpus in self.unfinished:
            warnings.warn(corpus.warning(self.folder), UnfinishedStoreWarning, stacklevel=2)
        snapshot, asked = self._snapshot, self._stored(queries)  # another thread may refresh meanwhile
        if approximate:
            return snapshot.search_approximately(asked, top_k, where)
        return snapshot.search_exactly(asked, top_k, where)

    def _stored(self, queries: Tensor) -> Tensor:
        """Queries `(n, embedding_dim)` in the width of the stored vectors."""
        return self._table.shortened(checked_queries(queries, self.embedding_dim))
