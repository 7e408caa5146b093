"""The LanceDB table of a store: opens it, and changes it while others may change it too.

LanceDB lets two writers both insert the same new id. So our writers take turns with a file lock. If another program
changed the table, the next change first looks for rows that share an id.
"""

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from torch import Tensor

from ..files import check_record, read_record, write_json
from .axes import FILE, read_axes, write_axes
from .lance_errors import ConflictError, foreign_errors
from .words import make_word_index

TABLE = "documents"
_IDENTITY = b"rabtriever"
_LOCK = "writing.lock"
_DISTINCT = "distinct.json"
_COLUMNS = {"id": pa.string(), "text": pa.string(), "metadata": pa.string()}
_WIDE, _NARROW = "_rabtriever_wide_", "_rabtriever_narrow_"  # prefixes of temporary columns
_TRIES = 10
_AT_ONCE = 1000  # ids or rows per SQL condition
_LARGE_FILE = 4096  # rows; files with so many on average are not merged
_KEPT = timedelta(days=7)  # for readers of older versions

T = TypeVar("T")


class StoreTable:
    """The table of a store.

    Args:
        folder: of the store.

    Raises:
        ValueError: the folder holds no store, or a broken one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, write_lock(folder)
        if not self.exists(folder):
            raise ValueError(
                f"{folder} holds no store; accepted: a folder that VectorStore.create (rabtriever index) made"
            )
        schema = self.latest().schema
        identity = (schema.metadata or {}).get(_IDENTITY)
        if identity is None:
            raise ValueError(
                f"{folder} holds a table that is not ours; accepted: a folder that VectorStore.create made"
            )
        try:
            record = json.loads(identity)
            check_record(folder, {"dim": 0, **record}, model=str, embedding_dim=int, dim=int)
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{folder} is broken (it does not name its model); accepted: a whole store. Index the corpus again"
            ) from error
        self.model: str = record["model"]
        self.embedding_dim: int = record["embedding_dim"]
        self.dim: int = record.get("dim", self.embedding_dim)
        self.axes = read_axes(folder, self.embedding_dim, self.dim) if "dim" in record else None
        for name, kind in columns(self.dim).items():
            if name not in schema.names or schema.field(name).type != kind:
                raise ValueError(
                    f"{folder} is broken (its column {name} is not {kind}); accepted: a whole store. Index the "
                    "corpus again"
                )

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder holds a table. What a killed process left of an unfinished table does not count."""
        return any((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))

    @classmethod
    def make(cls, folder: Path, model: str, embedding_dim: int, axes: Tensor | None = None) -> None:
        """Makes an empty table. The caller holds the lock.

        Args:
            folder: of the store.
            model: fingerprint of the student.
            embedding_dim: the width `k` of its vectors.
            axes: `(k, dim)`, if vectors are to be shortened.

        Raises:
            ValueError: the folder holds a store, or the axes are not for vectors of this width.
            OSError: it cannot be written.
        """
        if axes is not None and (axes.dim() != 2 or len(axes) != embedding_dim or not axes.shape[1]):
            raise ValueError(f"axes have shape {tuple(axes.shape)}; accepted: ({embedding_dim}, dim)")
        if cls.exists(folder):
            raise ValueError(
                f"{folder} already holds a store; accepted: another folder, or open it: VectorStore(folder)"
            )
        for left in (folder / _DISTINCT, folder / FILE, *folder.glob("approximate-*")):  # left from a removed table
            left.unlink(missing_ok=True)
        record, width = {"model": model, "embedding_dim": embedding_dim}, embedding_dim
        if axes is not None:
            write_axes(folder, axes)
            record["dim"] = width = axes.shape[1]
        identity = {_IDENTITY: json.dumps(record)}
        with foreign_errors(f"no store can be made in {folder}"):
            schema = pa.schema(columns(width)).with_metadata(identity)
            lancedb.connect(folder.absolute()).create_table(TABLE, schema=schema)

    def shortened(self, vectors: Tensor) -> Tensor:
        """Whole vectors `(n, embedding_dim)` as this table stores them, `(n, dim)`."""
        return vectors if self.axes is None else vectors.detach().float().cpu() @ self.axes

    def latest(self) -> Any:
        """The table at its newest version, as a new object.

        Raises:
            ValueError: it is broken.
        """
        with foreign_errors(f"{self.folder} cannot be opened"):
            table = lancedb.connect(self.folder.absolute()).open_table(TABLE)
            table.schema  # noqa: B018  (fails here if the table is broken)
            return table

    def change(self, change: Callable[["Changes"], T]) -> T:
        """Calls `change` under the lock with the newest version, and retries if another program changed the table.

        Raises:
            ConflictError: another program changed the table in each of ten attempts.
        """
        with self.lock:
            for number in range(_TRIES):
                changes = Changes(self.folder, self.latest())
                try:
                    made = change(changes)
                except ConflictError:
                    if number == _TRIES - 1:
                        raise
                    time.sleep(random.uniform(0, 0.01 * 2**number))
                else:
                    changes.remember_distinct()
                    return made
        raise AssertionError("not reached")


class Changes:
    """Commits to a table, made one by one while the lock is held.

    Args:
        folder: of the store.
        table: at its newest version.
    """

    def __init__(self, folder: Path, table: Any) -> None:
        self.folder, self.table = folder, table
        self._version: int = table.version
        self._recorded = self._read_distinct()
        self._distinct = self._recorded == self._version

    def commit(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a method of the table that makes one version.

        Raises:
            ConflictError: another program changed the table in between.
            ValueError: the table is broken.
            OSError: it cannot be written.
        """
        with foreign_errors(f"{self.folder} cannot be changed"):
            made = call(*arguments)
        # A version that another program made may hold an id twice.
        self._distinct = self._distinct and made.version in (self._version, self._version + 1)
        self._version = made.version
        return made

    def delete_duplicates(self) -> None:
        """Deletes rows that share their id with a newer row. Skips the search if there are known to be none."""
        if self._distinct:
            return
        rows = self.ids()
        counts = rows["id"].value_counts()
        several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        rows = rows.filter(pc.is_in(rows["id"], value_set=several))
        row_ids = rows["_rowid"].to_pylist()
        # A scan returns older rows first, so the dictionary keeps the newest row of each id.
        newest = set(dict(zip(rows["id"].to_pylist(), row_ids, strict=True)).values())
        older = [row_id for row_id in row_ids if row_id not in newest]
        self._distinct = True
        for first in range(0, len(older), _AT_ONCE):
            self.commit(self.table.delete, f"_rowid IN ({', '.join(map(str, older[first : first + _AT_ONCE]))})")

    def remember_distinct(self) -> None:
        """Records that this version has one row per id, if that is known, so that the next writer need not check."""
        if self._distinct and self._recorded != self._version:
            with suppress(OSError):  # the change is already made; the next writer will check
                write_json(self.folder / _DISTINCT, {"version": self._version})

    def _read_distinct(self) -> int | None:
        try:
            return read_record(self.folder / _DISTINCT, version=int).get("version")
        except ValueError:
            return None

    def ids(self) -> pa.Table:
        """All ids, with row ids."""
        with foreign_errors(f"{self.folder} cannot be read"):
            count = max(self.table.count_rows(), 1)
            return self.table.search().select(["id"]).with_row_id(True).limit(count).to_arrow()

    def delete_known(self, ids: list[str], column: pa.Array) -> tuple[int, list[str]]:
        """Deletes the rows with these ids, given as a list and as a column: how many, and the ids that have no row."""
        there = self.ids()["id"]
        found = set(there.filter(pc.is_in(there, value_set=column)).to_pylist())
        self.delete([id_ for id_ in ids if id_ in found])
        return len(found), [id_ for id_ in ids if id_ not in found]

    def delete(self, ids: list[str]) -> None:
        """Deletes the rows with these ids."""
        for first in range(0, len(ids), _AT_ONCE):
            quoted = ("'" + id_.replace("'", "''") + "'" for id_ in ids[first : first + _AT_ONCE])
            self.commit(self.table.delete, f"id IN ({', '.join(quoted)})")

    def fit(self, given: pa.Table) -> None:
        """Adds the columns that the table lacks, and widens columns of integers if floats are given."""
        left = [name for name in self.table.schema.names if name.startswith((_WIDE, _NARROW))]
        if left:  # by a process that was killed in `_widen`
            self.commit(self.table.drop_columns, left)
        schema = self.table.schema
        new = [column for column in given.schema if column.name not in schema.names]
        if new:
            self.commit(self.table.add_columns, new)
        for column in given.schema:
            if column.type == pa.float64() and column not in new and schema.field(column.name).type == pa.int64():
                self._widen(column.name)

    def upsert(self, given: pa.Table) -> None:
        """Replaces the rows whose ids are given, and adds the others. Columns that are not given become null."""
        schema = self.table.schema
        rows = {}
        for column in schema:
            if column.name in given.column_names:
                rows[column.name] = given[column.name]
            else:
                rows[column.name] = pa.nulls(len(given), column.type)
        merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        self.commit(merge.execute, pa.table(rows).cast(pa.schema([schema.field(name) for name in rows])))

    def compact(self) -> None:
        """Merges small files, if most are, and removes versions of more than a week ago.

        It makes versions of its own, so changes by other programs cannot be told apart.
        """
        with foreign_errors(f"{self.folder} cannot be changed"):
            files = self.table.stats()["fragment_stats"]["num_fragments"]
            oldest = min(version["timestamp"] for version in self.table.list_versions())
            if files * _LARGE_FILE <= max(self.table.count_rows(), _LARGE_FILE) and datetime.now() - oldest < _KEPT:
                return
            self.table.optimize(cleanup_older_than=_KEPT)
        self._distinct = self._distinct and self.table.version == self._version
        self._version = self.table.version

    def index_words(self) -> None:
        """Builds the index of words, unless it covers all rows.

        Raises:
            ValueError: no document has a text.
        """
        with foreign_errors(f"{self.folder} cannot be changed"):
            texts = self.table.count_rows("text <> ''")
        if not texts:
            raise ValueError(f"{self.folder} holds no texts, so it has no words; accepted: documents with texts")
        with foreign_errors(f"{self.folder} cannot be changed"):
            make_word_index(self.table)
        self._distinct = self._distinct and self.table.version in (self._version, self._version + 1)
        self._version = self.table.version

    def _widen(self, name: str) -> None:
        """Turns a column of integers into one of floats. Every version in between has the column in one type."""
        self.commit(self.table.add_columns, {f"{_WIDE}{name}": f"CAST(`{name}` AS DOUBLE)"})
        renamed = [{"path": name, "rename": f"{_NARROW}{name}"}, {"path": f"{_WIDE}{name}", "rename": name}]
        self.commit(self.table.alter_columns, *renamed)
        self.commit(self.table.drop_columns, [f"{_NARROW}{name}"])


def write_lock(folder: Path) -> FileLock:
    """The lock of a store's writers, across all threads, processes and machines that share the folder."""
    return FileLock(folder.absolute() / _LOCK)


def columns(width: int) -> dict[str, pa.DataType]:
    """The columns of every store, whose vectors have `width` numbers."""
    return {**_COLUMNS, "vector": pa.list_(pa.float32(), width)}
