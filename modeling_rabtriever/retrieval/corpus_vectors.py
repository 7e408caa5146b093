"""Document vectors on disk: Parquet shards that any tool can read, with ids, texts and metadata.

<folder>/encoding.json            model, width and type of the vectors, digests of the shards, done or not
<folder>/vectors-000000.parquet   columns id, text, metadata (JSON), vector (k numbers), factor (of int8 vectors)
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted  # json.dumps of a text, twice as fast
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..files import check_record, read_record, replace_file
from .documents import Document
from .metadata_columns import metadata_json, read_metadata
from .vector_types import narrow, widen

MANIFEST = "encoding.json"
# In a shard's metadata.
_DIGEST_KEY = b"rabtriever.documents"
_CHECKSUM_KEY = b"rabtriever.vectors"


@dataclass(frozen=True)
class Shard:
    """Some documents with their vectors, `(m, k)` fp32."""

    documents: list[Document]
    vectors: NDArray[np.float32]


class CorpusVectors:
    """A folder of encoded documents; one shard at a time is in memory.

    Args:
        folder: that `encode_corpus` wrote.

    Raises:
        ValueError: the folder holds no finished encoding.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.retrieval import CorpusVectors, Document, encode_corpus
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> _ = encode_corpus(student, [Document("d1", "bring the sponge")], "runs/vectors")
        >>> (shard,) = CorpusVectors("runs/vectors")
        >>> shard.vectors.shape
        (1, 512)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        record = read_record(path, done=bool)
        if not record.get("done"):
            state = "an unfinished encoding (another call finishes it)" if record else "no encoded corpus"
            raise ValueError(
                f"{folder} holds {state}; accepted: a folder that encode_corpus (rabtriever encode) finished"
            )
        check_record(path, record, model=str, embedding_dim=int, vector_type=str, documents=int)
        self.model: str = record["model"]
        self.embedding_dim: int = record["embedding_dim"]
        self.vector_type: str = record["vector_type"]
        self._documents: int = record["documents"]
        self._digests = recorded_digests(path, record)
        if self._documents < 1 or self.embedding_dim < 1:
            raise ValueError(
                f"{path} is not a valid record; accepted: documents ({self._documents}) and embedding_dim "
                f"({self.embedding_dim}) of at least 1"
            )

    def __len__(self) -> int:
        """Number of documents."""
        return self._documents

    def __iter__(self) -> Iterator[Shard]:
        """The shards in the order of the documents, after a check of their checksums.

        Raises:
            ValueError: a shard is missing, broken, or not the one that was written here.
        """
        found = 0
        paths = shard_paths(self.folder)
        if self._digests is not None:
            paths = [shard_path(self.folder, number) for number in range(len(self._digests))]
        for number, path in enumerate(paths):
            if not path.exists():
                raise ValueError(
                    f"{path} is missing; accepted: all shards. Encode the corpus again; the other shards are kept"
                )
            shard, digest = read_shard(path)
            if self._digests is not None and digest != self._digests[number]:
                raise ValueError(
                    f"{path} holds other documents than were encoded into this folder; accepted: its own shards. "
                    "Encode the corpus again"
                )
            if shard.vectors.shape[1] != self.embedding_dim or not np.isfinite(shard.vectors).all():
                raise ValueError(
                    f"{path} holds vectors of width {shard.vectors.shape[1]} or numbers that are not finite; accepted: "
                    f"width {self.embedding_dim}, finite"
                )
            found += len(shard.documents)
            yield shard
        if found != self._documents:
            raise ValueError(f"{self.folder} holds {found} of {self._documents} documents; accepted: all of its shards")


def recorded_digests(path: Path, record: dict[str, Any]) -> list[str] | None:
    """The digests of all shards by their number, from a manifest; `None` if an older version wrote it.

    Raises:
        ValueError: they are not a list of strings.
    """
    found = record.get("shards")
    if found is not None and not (isinstance(found, list) and all(isinstance(digest, str) for digest in found)):
        raise ValueError(f"{path} is not a valid record; accepted: a list of digests as shards")
    return found


def shard_path(folder: Path, number: int) -> Path:
    """The file of one shard."""
    return folder / f"vectors-{number:06d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The files of all shards, in order."""
    return sorted(folder.glob("vectors-*.parquet"))


def write_shard(path: Path, documents: Sequence[Document], vectors: NDArray[np.float32], vector_type: str) -> None:
    """Writes a shard atomically, with checksums.

    Raises:
        ValueError: the vectors do not fit the type.
    """
    held, factors = narrow(vectors, vector_type)
    columns = document_columns(documents, held)
    if vector_type == "int8":
        columns["factor"] = pa.array(factors)
    # Any Parquet reader checks the page checksums, but they do not cover the page headers. Ours cover the content.
    checksums = {_DIGEST_KEY: documents_digest(documents), _CHECKSUM_KEY: _checksum(held, factors)}
    table = pa.table(columns).replace_schema_metadata(checksums)
    # The vectors look random, so dictionaries and compression would only cost time.
    compression = {"id": "zstd", "text": "zstd", "metadata": "zstd"}
    options = {"compression": compression, "use_dictionary": False, "write_page_checksum": True}
    replace_file(path, lambda temporary: pq.write_table(table, temporary.absolute(), **options))


def document_columns(documents: Sequence[Document], vectors: NDArray[Any]) -> dict[str, pa.Array]:
    """Documents and their vectors `(m, k)` as columns `id`, `text`, `metadata` (JSON) and `vector`."""
    return {
        "id": pa.array([document.id for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.string()),
        "metadata": pa.array([metadata_json(document) for document in documents], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }


def read_shard(path: Path) -> tuple[Shard, str]:
    """A shard with its vectors in fp32, and the digest of its documents.

    Raises:
        ValueError: the file is broken. In shards of this version, any changed bit that changes the content is noticed.
        OSError: it cannot be opened.
    """
    try:
        with pq.ParquetFile(path.absolute(), page_checksum_verification=True) as file:
            table = file.read()
        written = table.schema.metadata or {}
        k = table.schema.field("vector").type.list_size
        held = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, k)
        factors = table["factor"].to_numpy() if "factor" in table.column_names else np.ones(len(held), dtype=np.float32)
        rows = list(zip(*(table[name].to_pylist() for name in ("id", "text", "metadata")), strict=True))
        digest = _digest(rows)
        if written.get(_DIGEST_KEY, digest.encode()) != digest.encode():
            raise ValueError("the documents do not match their checksum")
        checksum = _checksum(held, factors).encode()
        if written.get(_CHECKSUM_KEY, checksum) != checksum:
            raise ValueError("the vectors do not match their checksum")
        documents = [Document(id_, text, read_metadata(metadata)) for id_, text, metadata in rows]
        return Shard(documents, widen(held, factors)), digest
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # pyarrow raises many kinds of errors for a broken file
        raise ValueError(
            f"{path} is broken ({error}); accepted: a whole shard. Encode the corpus again; the other shards are kept"
        ) from error


def holds(path: Path, digest: str) -> bool:
    """Whether the file is a whole shard of the documents with this digest.

    Raises:
        ValueError: the file is a whole shard of other documents.
    """
    try:
        _, found = read_shard(path)
    except (FileNotFoundError, ValueError):
        return False  # a broken shard is written again
    check_place(path, found, digest)
    return True


def written_digest(path: Path) -> str | None:
    """The digest in a shard's metadata, without reading the shard; `None` if it is missing or broken."""
    try:
        return (pq.read_schema(path.absolute()).metadata or {})[_DIGEST_KEY].decode()
    except Exception:  # pyarrow raises many kinds of errors for a broken file
        return None


def check_place(path: Path, found: str | None, digest: str) -> None:
    """Raises a ValueError if there is a shard at this place and it holds other documents than the corpus."""
    if found not in (None, digest):
        raise ValueError(
            f"{path} holds other documents than the corpus at this place, so the corpus has changed; accepted: another "
            "folder"
        )


def documents_digest(documents: Iterable[Document]) -> str:
    """A digest of ids, texts and metadata."""
    return _digest((document.id, document.text, metadata_json(document)) for document in documents)


def _digest(rows: Iterable[tuple[str, str, str]]) -> str:
    digest = hashlib.sha256()
    for id_, text, metadata in rows:
        digest.update(f"[{_quoted(id_)}, {_quoted(text)}, {metadata}]".encode())
    return digest.hexdigest()[:16]


def _checksum(held: NDArray[Any], factors: NDArray[np.float32]) -> str:
    """A checksum of stored vectors: types, shape and numbers."""
    found = zlib.crc32(f"{held.dtype} {held.shape} {factors.dtype}".encode())
    for numbers in (held, factors):
        found = zlib.crc32(np.ascontiguousarray(numbers).data, found)
    return f"{found:08x}"
