"""A store of document vectors on disk: upsert, delete, filter, search. LanceDB keeps it, no server runs.

Every change is a version: readers keep the one they opened until they `refresh`, also while a writer appends.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from .approximate import PROBES, ApproximateIndex
from .corpus_vectors import CorpusVectors, document_columns
from .documents import Document
from .exact import ExactIndex
from .metadata_columns import checked_fields, metadata_columns

TABLE = "documents"
_IDENTITY = b"rabtriever"
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True)
class Hit:
    """A document found.

    Args:
        id: of the document.
        score: inner product of query and document; comparable within a query only.
        text: of the document.
        metadata: its other fields.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class VectorStore:
    """Documents with vectors of one model, in a folder.

    Args:
        folder: of the store.
        model: fingerprint of the student whose query vectors will be asked with (`encoder_fingerprint`); `None` skips
            the comparison.
        precision: of the vectors while they are searched exactly, see `ExactIndex`.
        device: where they are searched.

    Raises:
        ValueError: the folder holds no store, or one with vectors of another model.
    """

    def __init__(
        self, folder: str | Path, model: str | None = None, precision: str = "float32", device: str = "cpu"
    ) -> None:
        self.folder, self._precision, self._device = Path(folder), precision, device
        if not self.exists(folder):
            raise ValueError(f"{folder} holds no store; accepted: a folder VectorStore.create (rabtriever index) made")
        self._writing = lancedb.connect(self.folder).open_table(TABLE)
        identity = (self._writing.schema.metadata or {}).get(_IDENTITY)
        if identity is None:
            raise ValueError(f"{folder} holds a table that is not ours; accepted: a folder VectorStore.create made")
        record = json.loads(identity)
        self.model: str = record["model"]
        self.embedding_dim: int = record["embedding_dim"]
        if model is not None and model != self.model:
            raise ValueError(
                f"{folder} holds vectors of the model {self.model}, the queries' model is {model}: scores would mean "
                "nothing. Encode the corpus with this model"
            )
        self.refresh()

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether the folder holds a store."""
        return (Path(folder) / f"{TABLE}.lance").is_dir()

    @classmethod
    def create(cls, folder: str | Path, model: str, embedding_dim: int, **options: Any) -> "VectorStore":
        """An empty store; `options` are those of the constructor.

        Raises:
            ValueError: the folder already holds a store.
        """
        folder = Path(folder)
        if cls.exists(folder):
            raise ValueError(
                f"{folder} already holds a store; accepted: another folder, or open it: VectorStore(folder)"
            )
        identity = {_IDENTITY: json.dumps({"model": model, "embedding_dim": embedding_dim})}
        lancedb.connect(folder).create_table(TABLE, schema=_schema(embedding_dim).with_metadata(identity))
        return cls(folder, model, **options)

    def __len__(self) -> int:
        """Documents in the version that is read."""
        return self._reading.count_rows()

    def refresh(self) -> None:
        """Reads the newest version from now on, with what other processes wrote."""
        self._writing.checkout_latest()
        self._reading = lancedb.connect(self.folder).open_table(TABLE)
        self._reading.checkout(self._writing.version)
        self._index: ExactIndex | None = None
        self._near: ApproximateIndex | None = None

    def upsert(self, documents: Sequence[Document], vectors: Tensor | NDArray[np.float32]) -> None:
        """Adds documents; one whose id is there is replaced.

        Args:
            documents: with distinct ids.
            vectors: `(m, k)` of the store's model.

        Raises:
            ValueError: the width is another, an id is given twice, a number is not finite, or a metadata field has
                another type than in the store.
        """
        held = np.asarray(vectors.detach().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
        if held.shape != (len(documents), self.embedding_dim):
            raise ValueError(
                f"vectors have shape {held.shape}; accepted: ({len(documents)}, {self.embedding_dim}), the documents "
                "and the width of this store's model"
            )
        if not np.isfinite(held).all():
            raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
        ids = [document.id for document in documents]
        if len(set(ids)) < len(ids):
            twice = next(id_ for place, id_ in enumerate(ids) if id_ in ids[:place])
            raise ValueError(f"the id {twice!r} is given twice; accepted: distinct ids")
        if not ids:
            return
        table = pa.table(document_columns(documents, held), schema=_schema(self.embedding_dim))
        columns = metadata_columns([document.metadata for document in documents])
        new = checked_fields(columns, self._writing.schema)
        if new:
            self._writing.add_columns(new)
        for name, column in columns.items():
            table = table.append_column(name, column.cast(self._writing.schema.field(name).type))
        for missing in [name for name in self._writing.schema.names if name not in table.column_names]:
            table = table.append_column(missing, pa.nulls(len(table), self._writing.schema.field(missing).type))
        table = table.select(self._writing.schema.names)
        if self._writing.count_rows():
            merge = self._writing.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(table)
        else:
            self._writing.add(table)
        self.refresh()

    def add_corpus(self, corpus: CorpusVectors) -> None:
        """Upserts an encoded corpus, shard by shard.

        Raises:
            ValueError: it was encoded by another model.
        """
        if corpus.model != self.model:
            raise ValueError(f"{corpus.folder} was encoded by the model {corpus.model}, the store's is {self.model}")
        for shard in corpus:
            self.upsert(shard.documents, shard.vectors)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes documents; ids that are not there are passed over. Returns how many were removed."""
        ids, before = sorted(set(ids)), len(self)
        for first in range(0, len(ids), _DELETED_AT_ONCE):
            self._writing.delete(f"id IN ({', '.join(map(_quoted, ids[first : first + _DELETED_AT_ONCE]))})")
        self.refresh()
        return before - len(self)

    def compact(self) -> None:
        """Merges the files many small changes left. It is a change too: an approximate index is to be built again."""
        self._writing.optimize()
        self.refresh()

    def build_index(self) -> None:
        """An approximate index over all documents, for `search(approximate=True)`.

        It belongs to the version it is built from; after a change it is built again, which takes seconds per million.

        Raises:
            ValueError: the store is empty.
        """
        if not len(self):
            raise ValueError(f"{self.folder} holds no documents; accepted: at least one")
        self._near = ApproximateIndex.build(*self._vectors())
        path = self._near_path()
        self._near.save(path)
        for old in self.folder.glob("approximate-*"):
            if old.stem != path.stem:
                old.unlink(missing_ok=True)

    @property
    def has_index(self) -> bool:
        """Whether an approximate index was built, of this version or an older one."""
        return any(self.folder.glob("approximate-*.faiss"))

    def search(
        self,
        queries: Tensor,
        top_k: int = 10,
        where: str | None = None,
        approximate: bool = False,
        probes: int = PROBES,
    ) -> list[list[Hit]]:
        """The best documents of each query, best first.

        Args:
            queries: `(n, k)` query vectors.
            top_k: documents per query.
            where: an SQL condition on `id`, `text` and metadata fields, such as `"lang = 'en' AND year > 2020"`.
            approximate: whether the index of `build_index` is asked; otherwise every document is scored. The vectors of
                an exact search stay in memory for the next.
            probes: of an approximate search, see `ApproximateIndex.search`.

        Raises:
            ValueError: the condition cannot be read, a setting is out of range, or there is no index of this version.
        """
        if approximate:
            near = self._approximate()
            allowed = None if where is None else self._allowed(where)
            scores, rows = near.search(queries, top_k, probes, allowed)
        else:
            index = self._exact()
            mask = None if where is None else torch.isin(self._row_ids, self._allowed(where))
            best, places = index.search(queries, top_k, mask)
            scores, rows = best.tolist(), self._row_ids[places.cpu()].tolist()
        documents = self._documents(sorted({row for own in rows for row in own}))
        return [
            [_hit(documents[row], score) for score, row in zip(own, found, strict=True)]
            for own, found in zip(scores, rows, strict=True)
        ]

    def _exact(self) -> ExactIndex:
        if self._index is None:
            vectors, self._row_ids = self._vectors()
            self._index = ExactIndex(vectors, self._precision, self._device)
        return self._index

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """All vectors `(m, k)` fp32 and the documents' row ids `(m,)` int64, of the version that is read."""
        count, first = len(self), 0
        vectors, row_ids = torch.empty(count, self.embedding_dim), torch.empty(count, dtype=torch.long)
        batches = self._reading.search().select(["vector"]).with_row_id(True).limit(max(count, 1)).to_batches(65536)
        for batch in batches:
            rows = slice(first, first + len(batch))
            numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            vectors[rows] = torch.from_numpy(numbers.reshape(-1, self.embedding_dim).copy())
            row_ids[rows] = torch.from_numpy(batch["_rowid"].to_numpy().astype(np.int64))
            first += len(batch)
        return vectors, row_ids

    def _near_path(self) -> Path:
        return self.folder / f"approximate-{self._reading.version}.faiss"

    def _approximate(self) -> ApproximateIndex:
        if self._near is None:
            if not self._near_path().exists():
                state = "an approximate index of another version" if self.has_index else "no approximate index"
                raise ValueError(f"{self.folder} has {state}; call build_index (rabtriever index --approximate)")
            self._near = ApproximateIndex.load(self._near_path())
        return self._near

    def _allowed(self, where: str) -> Tensor:
        """Row ids of the documents that meet a condition."""
        found = self._query(
            self._reading.search().where(where).select(["id"]).with_row_id(True).limit(max(len(self), 1))
        )
        return torch.tensor(found["_rowid"].to_pylist(), dtype=torch.long)

    def _query(self, search: Any) -> pa.Table:
        try:
            return search.to_arrow()
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"the store could not answer: {error}") from error

    def _documents(self, row_ids: list[int]) -> dict[int, dict[str, Any]]:
        if not row_ids:
            return {}
        found = self._reading.take_row_ids(row_ids).select(["id", "text", "metadata"]).with_row_id().to_arrow()
        return {row["_rowid"]: row for row in found.to_pylist()}


def _schema(embedding_dim: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), embedding_dim)
    return pa.schema([("id", pa.string()), ("text", pa.string()), ("metadata", pa.string()), ("vector", vector)])


def _hit(row: dict[str, Any], score: float) -> Hit:
    return Hit(row["id"], score, row["text"], json.loads(row["metadata"]))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
