"""Encoding a corpus of any size: document by document from the source, shard by shard to the disk."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, TypeVar

from transformers.utils import logging

from ..files import check_record, read_record, write_json
from ..identity import encoder_fingerprint, same_encoder, shown
from ..modeling_rabtriever import RabtrieverModel
from .corpus_vectors import (
    MANIFEST,
    CorpusVectors,
    check_place,
    documents_digest,
    holds,
    recorded_digests,
    shard_path,
    shard_paths,
    write_shard,
    written_digest,
)
from .documents import Document, DocumentReader
from .metadata_columns import MetadataFields, cleaned
from .vector_types import VECTOR_TYPES

T = TypeVar("T")


def encode_corpus(
    model: RabtrieverModel,
    documents: Iterable[Document],
    folder: str | Path,
    vector_type: str = "float32",
    documents_per_shard: int = 8192,
    token_budget: int | None = None,
) -> CorpusVectors:
    """Encodes documents into a folder; called again after an interruption, it encodes what is missing or broken.

    A shard is written in one piece, so that a killed process loses the shard in work. What is finished is recognised by
    its documents, so the source is read again from its start. Memory holds one shard, and a number for each id.

    Args:
        model: the student.
        documents: `DocumentReader`, or any iterable; its length, if it has one, is the progress bar's. NaN in metadata
            is a missing value.
        folder: where to; created if missing.
        vector_type: how numbers are kept: `float32`, `float16` (half the bytes) or `int8` with one factor per vector
            (a quarter).
        documents_per_shard: documents per file, encoded together.
        token_budget: padded tokens per forward pass; `None` fits the device.

    Returns:
        The finished folder.

    Raises:
        ValueError: there are no documents, an id occurs twice, metadata cannot be kept, a setting is out of range, or
            the folder belongs to another model, other settings or another corpus. Such a folder is left as it was.
        OSError: the folder cannot be written, or the disk is full; finished shards are kept.
    """
    target = EncodingFolder(folder, model, vector_type, documents_per_shard)
    digests, count = [], 0
    with logging.tqdm(total=length_hint(documents) or None, unit="document", desc="encoding") as bar:
        for number, chunk in enumerate(chunks(checked(documents), documents_per_shard)):
            digests.append(documents_digest(chunk))
            target.admit(number, len(chunk), digests[-1])
            if number == 0:
                target.begin()
            encode_shard(model, shard_path(target.path, number), chunk, vector_type, token_budget)
            count += len(chunk)
            bar.update(len(chunk))
    return target.finish(count, digests)


class EncodingFolder:
    """A folder that shards of one model, with one set of settings, of one corpus are written into.

    Args:
        path: of the folder.
        model: the student.
        vector_type: as for `encode_corpus`.
        documents_per_shard: as for `encode_corpus`.

    Raises:
        ValueError: a setting is out of range, or the folder belongs to another model or other settings.
    """

    def __init__(self, path: str | Path, model: RabtrieverModel, vector_type: str, documents_per_shard: int) -> None:
        if vector_type not in VECTOR_TYPES:
            raise ValueError(f"vector_type is {vector_type!r}; accepted: {', '.join(VECTOR_TYPES)}")
        if documents_per_shard < 1:
            raise ValueError(f"documents_per_shard is {documents_per_shard}; accepted: 1 or more")
        self.path = Path(path)
        self._record: dict[str, Any] = {
            "model": encoder_fingerprint(model),
            "embedding_dim": model.config.embedding_dim,
            "vector_type": vector_type,
            "documents_per_shard": documents_per_shard,
        }
        manifest = self.path / MANIFEST
        found = read_record(manifest, done=bool)
        if found.get("done"):
            check_record(manifest, found, documents=int)
        elif not shard_paths(self.path):
            found = {}  # a call that was stopped before its first shard binds nobody
        differing = [name for name, value in self._record.items() if found and found.get(name) != value]
        if "model" in differing and same_encoder(str(found.get("model")), self._record["model"]):
            differing.remove("model")  # in another number type
        if differing:
            listed = ", ".join(
                f"{name} {shown(str(found.get(name)))} (this call: {shown(str(self._record[name]))})"
                for name in differing
            )
            raise ValueError(f"{self.path} holds vectors with {listed}; accepted: another folder")
        self._found, self._digests = found, recorded_digests(manifest, found)

    def admit(self, number: int, documents: int, digest: str) -> None:
        """Compares a shard to come with what the folder is known to hold at its place.

        Args:
            number: of the shard.
            documents: how many it holds.
            digest: of them.

        Raises:
            ValueError: the folder is of another corpus.
        """
        if self._found.get("done"):
            size = self._record["documents_per_shard"]
            if documents != max(0, min(size, self._found["documents"] - number * size)):
                raise ValueError(
                    f"{self.path} holds {self._found['documents']} documents, the corpus has more or fewer: it was "
                    "changed; accepted: another folder"
                )
        path = shard_path(self.path, number)
        known = written_digest(path)
        if self._digests is not None:
            known = self._digests[number] if number < len(self._digests) else "none"
        check_place(path, known, digest)

    def begin(self, digests: Sequence[str] | None = None) -> None:
        """Marks the folder as of an unfinished encoding; one that is finished stays so, and only gets shards it lacks.

        Args:
            digests: of the documents of all shards, if they are known before.

        Raises:
            ValueError: it is known to hold more shards.
            OSError: it cannot be written.
        """
        if digests is not None:
            self._check_end(len(digests))
        for left in self.path.glob(".*.tmp"):  # of a killed process
            left.unlink(missing_ok=True)
        if not self._found.get("done") and (not self._found or digests is not None):
            known = {} if digests is None else {"shards": list(digests)}
            write_json(self.path / MANIFEST, {**self._record, **known, "done": False})

    def finish(self, count: int, digests: Sequence[str]) -> CorpusVectors:
        """Marks the folder as finished.

        Args:
            count: documents of the corpus.
            digests: of the documents of its shards.

        Raises:
            ValueError: there are no documents, or the folder is of more.
        """
        if not count:
            raise ValueError("the corpus has no documents; accepted: at least one")
        self._check_end(len(digests))
        record = {**self._record, "documents": count, "shards": list(digests), "done": True}
        if record != self._found:
            write_json(self.path / MANIFEST, record)
        return CorpusVectors(self.path)

    def _check_end(self, shards: int) -> None:
        if max(len(shard_paths(self.path)), len(self._digests or ())) > shards:
            raise ValueError(f"{self.path} holds shards of a longer corpus; accepted: another folder")


def encode_shard(
    model: RabtrieverModel, path: Path, documents: Sequence[Document], vector_type: str, token_budget: int | None
) -> None:
    """Encodes some documents into a file, unless it is there.

    Raises:
        ValueError: the file holds other documents, or the vectors do not fit the type.
    """
    if not holds(path, documents_digest(documents)):
        vectors = model.encode_document([document.text for document in documents], token_budget, progress=False)
        write_shard(path, documents, vectors.cpu().numpy(), vector_type)


def checked(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents as they come, as they are kept.

    Raises:
        ValueError: an id occurs twice, or metadata cannot be kept.
    """
    fields = MetadataFields()
    if not isinstance(documents, DocumentReader):  # which has looked for repeated ids
        documents = distinct(documents)
    for document in cleaned(documents):
        fields.add(document)
        yield document


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents as they come.

    Raises:
        ValueError: an id occurs twice.
    """
    seen: set[int] = set()
    for document in documents:
        if hash(document.id) in seen:
            raise ValueError(f"the id {document.id!r} occurs twice; accepted: unique ids")
        seen.add(hash(document.id))
        yield document


def chunks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` rows; the last may be shorter."""
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
