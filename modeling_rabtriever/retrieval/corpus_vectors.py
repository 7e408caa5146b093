"""Document vectors on disk: Parquet shards any tool reads, with ids, texts and metadata beside the numbers.

<folder>/encoding.json            model, width and type of the vectors, done or not
<folder>/vectors-000000.parquet   columns id, text, metadata (JSON), vector (k numbers), factor (of int8 vectors)
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..files import check_record, read_record, replace_file
from .documents import Document
from .vector_types import narrow, widen

MANIFEST = "encoding.json"
_DIGEST = b"rabtriever.documents"


@dataclass(frozen=True)
class Shard:
    """Some documents with their vectors, `(m, k)` fp32."""

    documents: list[Document]
    vectors: NDArray[np.float32]


class CorpusVectors:
    """A folder of encoded documents; one shard at a time is in memory.

    Args:
        folder: where `encode_corpus` put them.

    Raises:
        ValueError: the folder holds no finished encoding.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        record = read_record(path, done=bool)
        if not record.get("done"):
            state = "an unfinished encoding; call it again to go on" if record else "no encoded corpus"
            raise ValueError(
                f"{folder} holds {state}; accepted: a folder that encode_corpus (rabtriever encode) finished"
            )
        check_record(path, record, model=str, embedding_dim=int, vector_type=str, documents=int)
        self.model: str = record["model"]
        self.embedding_dim: int = record["embedding_dim"]
        self.vector_type: str = record["vector_type"]
        self._documents: int = record["documents"]

    def __len__(self) -> int:
        """Number of documents."""
        return self._documents

    def __iter__(self) -> Iterator[Shard]:
        """The shards in the order of the documents.

        Raises:
            ValueError: a shard is missing or broken.
        """
        found = 0
        for path in shard_paths(self.folder):
            shard = read_shard(path)
            found += len(shard.documents)
            yield shard
        if found != self._documents:
            raise ValueError(f"{self.folder} holds {found} of {self._documents} documents: a shard is missing")


def shard_path(folder: Path, number: int) -> Path:
    """The file of one shard."""
    return folder / f"vectors-{number:06d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The files of all shards, in order."""
    return sorted(folder.glob("vectors-*.parquet"))


def write_shard(path: Path, documents: Sequence[Document], vectors: NDArray[np.float32], vector_type: str) -> None:
    """Writes a shard atomically.

    Raises:
        ValueError: the vectors do not fit the type.
    """
    held, factors = narrow(vectors, vector_type)
    columns = document_columns(documents, held)
    if vector_type == "int8":
        columns["factor"] = pa.array(factors)
    table = pa.table(columns).replace_schema_metadata({_DIGEST: documents_digest(documents)})
    # The numbers are as good as random: dictionaries and compression would only cost time.
    compression = {"id": "zstd", "text": "zstd", "metadata": "zstd"}
    replace_file(
        path, lambda temporary: pq.write_table(table, temporary, compression=compression, use_dictionary=False)
    )


def document_columns(documents: Sequence[Document], vectors: NDArray[Any]) -> dict[str, pa.Array]:
    """Documents and their vectors `(m, k)` as columns `id`, `text`, `metadata` (JSON) and `vector`."""
    return {
        "id": pa.array([document.id for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.string()),
        "metadata": pa.array([json.dumps(document.metadata, default=str) for document in documents], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }


def read_shard(path: Path) -> Shard:
    """A shard with its vectors in fp32.

    Raises:
        ValueError: the file is broken.
    """
    table = _read(path)
    k = table.schema.field("vector").type.list_size
    held = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, k)
    factors = table["factor"].to_numpy() if "factor" in table.column_names else np.ones(len(held), dtype=np.float32)
    rows = zip(table["id"].to_pylist(), table["text"].to_pylist(), table["metadata"].to_pylist(), strict=True)
    return Shard([Document(id_, text, json.loads(metadata)) for id_, text, metadata in rows], widen(held, factors))


def holds(path: Path, documents: Sequence[Document]) -> bool:
    """Whether a whole shard of exactly these documents is there.

    Raises:
        ValueError: a whole shard is there, but of other documents.
    """
    if not path.exists():
        return False
    try:
        found = pq.read_schema(path).metadata.get(_DIGEST, b"").decode()
    except pa.ArrowInvalid:
        return False  # cut off by a failing disk: written again
    if found != documents_digest(documents):
        raise ValueError(
            f"{path} holds other documents than the corpus has at this place: it was changed. Choose another folder"
        )
    return True


def documents_digest(documents: Sequence[Document]) -> str:
    """A digest of ids, texts and metadata."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.text, document.metadata], default=str).encode())
    return digest.hexdigest()[:16]


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} is broken ({error}); delete it and encode again: the other shards are kept"
        ) from error
