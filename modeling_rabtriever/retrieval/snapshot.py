"""A snapshot for searches: one version of a store, which no writer changes."""

import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .approximate import ApproximateIndex, Tuning, index_path, wanted_recall
from .exact import ExactIndex
from .hits import Hit
from .lance_errors import foreign_errors
from .lance_table import StoreTable
from .metadata_columns import read_metadata
from .words import best_by_words, has_word_index

# Brackets do not count inside strings, quoted names and comments.
_UNCOUNTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)


class Snapshot:
    """The version of a store that is the newest when this is made. Threads may share it.

    Args:
        store: the table.
        precision: of the vectors while they are searched exactly, see `ExactIndex`.
        device: where they are searched.
    """

    def __init__(self, store: StoreTable, precision: str, device: str) -> None:
        self._store, self._precision, self._device = store, precision, device
        self._table = store.latest()
        self.version: int = self._table.version
        with foreign_errors(f"version {self.version} of {store.folder} cannot be opened"):
            self._table.checkout(self.version)
        self._loading = threading.Lock()
        self._exact: tuple[ExactIndex, Tensor] | None = None
        self._near: ApproximateIndex | None = None

    def __len__(self) -> int:
        """Number of documents."""
        with self._reading():
            return self._table.count_rows()

    def vectors(self) -> tuple[Tensor, Tensor]:
        """All stored vectors `(m, dim)` fp32 and the documents' row ids `(m,)` int64."""
        count, first, k = len(self), 0, self._store.dim
        vectors, row_ids = torch.empty(count, k), torch.empty(count, dtype=torch.long)
        with self._reading():
            for batch in self._rows(["vector"], count).to_batches(65536):
                rows = slice(first, first + len(batch))
                numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
                vectors[rows] = torch.from_numpy(numbers.reshape(-1, k).copy())
                row_ids[rows] = torch.from_numpy(batch["_rowid"].to_numpy().astype(np.int64))
                first += len(batch)
            if first != count:
                raise ValueError(f"only {first} of {count} vectors were found")
        return vectors, row_ids

    def build_index(self, recall: float | None, queries: Tensor | None) -> Tuning:
        """Writes an approximate index of this version, unless a valid one exists, and removes those of other versions.

        Args:
            recall: as for `ApproximateIndex.build`; `None` keeps that of an index of any version.
            queries: stored in the same width as the documents.

        Raises:
            ValueError: there are no documents, or the recall is not reached.
            OSError: it cannot be written.
        """
        folder = self._store.folder
        if not len(self):
            raise ValueError(f"{folder} holds no documents; accepted: at least one")
        recall = wanted_recall(folder) if recall is None else recall
        try:
            near = ApproximateIndex.load(folder, self.version)
            if near.tuning.wanted != recall or queries is not None:
                raise ValueError("it was tuned to something else")
        except ValueError:
            near = ApproximateIndex.build(*self.vectors(), recall, queries)
            near.save(folder, self.version)
        self._near = near
        for old in (*folder.glob("approximate-*"), *folder.glob(".approximate-*.tmp")):
            if old.stem != index_path(folder, self.version).stem:
                old.unlink(missing_ok=True)
        return near.tuning

    def search_exactly(self, queries: Tensor, top_k: int, where: str | None) -> list[list[Hit]]:
        """The best documents of all; the vectors stay in memory for the next search."""
        with self._loading:
            if self._exact is None:
                vectors, row_ids = self.vectors()
                self._exact = ExactIndex(vectors, self._precision, self._device), row_ids
        index, row_ids = self._exact
        mask = None if where is None else torch.isin(row_ids, self._allowed(where))
        scores, places = index.search(queries, top_k, mask)
        return self._hits(scores.tolist(), row_ids[places.cpu()].tolist())

    def search_approximately(self, queries: Tensor, top_k: int, where: str | None) -> list[list[Hit]]:
        """The best documents that the approximate index of this version finds."""
        near, allowed = self.near(), None if where is None else self._allowed(where)
        return self._hits(*near.search(queries, top_k, allowed))

    @property
    def tuning(self) -> Tuning | None:
        """How the approximate index of this version searches; `None` without one."""
        try:
            return self.near().tuning
        except ValueError:
            return None

    def near(self) -> ApproximateIndex:
        """The approximate index of this version; it stays in memory.

        Raises:
            ValueError: there is none, or it is broken.
        """
        with self._loading:
            if self._near is None:
                self._near = ApproximateIndex.load(self._store.folder, self.version)
            return self._near

    @property
    def has_words(self) -> bool:
        """Whether this version has an index of words."""
        with self._reading():
            return has_word_index(self._table)

    def search_words(self, queries: Sequence[str], top_k: int, where: str | None) -> list[list[Hit]]:
        """The best documents by words."""
        if not self.has_words:
            raise ValueError(
                f"{self._store.folder} has no index of words; accepted: one made by build_words (rabtriever index "
                "--words)"
            )
        condition = None if where is None else _whole(where)
        with foreign_errors("the store could not answer"):
            found = [best_by_words(self._table, query, top_k, condition) for query in queries]
        return self._hits([scores for scores, _ in found], [rows for _, rows in found])

    def _rows(self, names: list[str], count: int) -> Any:
        return self._table.search().select(names).with_row_id(True).limit(max(count, 1))

    def _allowed(self, where: str) -> Tensor:
        """Row ids of the documents that meet a condition."""
        condition, count = _whole(where), len(self)
        with foreign_errors("the store could not answer"):
            found = self._rows(["id"], count).where(condition).to_arrow()
        return torch.tensor(found["_rowid"].to_pylist(), dtype=torch.long)

    def _hits(self, scores: list[list[float]], found: list[list[int]]) -> list[list[Hit]]:
        row_ids = sorted({row for own in found for row in own})
        documents: dict[int, dict[str, Any]] = {}
        if row_ids:
            with self._reading():
                taken = self._table.take_row_ids(row_ids).select(["id", "text", "metadata"]).with_row_id().to_arrow()
                for row in taken.to_pylist():
                    metadata = read_metadata(row["metadata"])
                    documents[row["_rowid"]] = {"id": row["id"], "text": row["text"], "metadata": metadata}
                if len(documents) < len(row_ids):
                    raise ValueError(f"only {len(documents)} of {len(row_ids)} documents were found")
        return [
            [Hit(score=score, **documents[row]) for score, row in zip(own, rows, strict=True)]
            for own, rows in zip(scores, found, strict=True)
        ]

    def _reading(self) -> AbstractContextManager[None]:
        folder = self._store.folder
        return foreign_errors(f"version {self.version} of {folder} cannot be read; call refresh, or index again")


def _whole(where: str) -> str:
    """A condition in brackets. LanceDB ignores anything after a complete condition, but not inside brackets.

    Raises:
        ValueError: the condition closes a bracket that it did not open, which would close the brackets around it.
    """
    depth = 0
    for bracket in re.findall("[()]", _UNCOUNTED.sub("", where)):
        depth += 1 if bracket == "(" else -1
        if depth < 0:
            raise ValueError(f"where is {where!r}, which closes a bracket too many; accepted: one SQL condition")
    end = "\n)" if "--" in where else ")"  # a line break ends a comment
    return f"({where}{end}"
