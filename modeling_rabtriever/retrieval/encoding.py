"""Encodes a corpus of any size: reads documents one at a time, and writes vectors to disk shard by shard."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, TypeVar

from ..files import check_record, read_record, write_json
from ..identity import encoder_fingerprint, same_encoder, shown
from ..modeling_rabtriever import RabtrieverModel
from ..progress import progress
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
from .distinct import SeenTexts
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
    """Encodes documents into a folder. A second call after an interruption encodes what is missing or broken.

    Shards are written atomically, so a killed process only loses the shard it was working on. Finished shards are
    recognised by their documents, so the source is read again from its start. Memory holds one shard and a number per
    id.

    Args:
        model: the student.
        documents: `DocumentReader`, or any iterable; its length, if any, is shown with the progress. NaN in metadata
            is a missing value.
        folder: output folder; created if missing.
        vector_type: how numbers are stored: `float32`, `float16` (half the bytes) or `int8` with one factor per vector
            (a quarter).
        documents_per_shard: documents per file, encoded together.
        token_budget: padded tokens per forward pass; `None` fits the device.

    Returns:
        The finished folder.

    Raises:
        ValueError: there are no documents, an id occurs twice, metadata cannot be stored, a setting is out of range, or
            the folder belongs to another model, other settings or another corpus. Such a folder is left unchanged.
        OSError: the folder cannot be written, or the disk is full; finished shards are kept.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.retrieval import Document, encode_corpus
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> documents = [Document("d1", "bring the sponge", {"room": "kitchen"}), Document("d2", "bring the lamp")]
        >>> vectors = encode_corpus(student, documents, "runs/vectors")  # or DocumentReader("corpus.jsonl")
        >>> len(vectors), vectors.embedding_dim
        (2, 512)
    """
    target = EncodingFolder(folder, model, vector_type, documents_per_shard)
    digests, count = [], 0
    with progress(length_hint(documents) or None, "encoding", "document") as bar:
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
    """A folder for the shards of one corpus, encoded by one model with one set of settings.

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
            found = {}  # nothing was encoded yet, so these settings do not matter
        differing = [name for name, value in self._record.items() if found and found.get(name) != value]
        if "model" in differing and same_encoder(str(found.get("model")), self._record["model"]):
            differing.remove("model")  # the same model in another dtype
        if differing:
            listed = ", ".join(
                f"{name} {shown(str(found.get(name)))} (this call: {shown(str(self._record[name]))})"
                for name in differing
            )
            raise ValueError(f"{self.path} holds vectors with {listed}; accepted: another folder")
        self._found, self._digests = found, recorded_digests(manifest, found)

    def admit(self, number: int, documents: int, digest: str) -> None:
        """Checks the next shard against the one that the folder holds at its place, if any.

        Args:
            number: of the shard.
            documents: how many it holds.
            digest: of its documents.

        Raises:
            ValueError: the folder holds another corpus.
        """
        if self._found.get("done"):
            size = self._record["documents_per_shard"]
            if documents != max(0, min(size, self._found["documents"] - number * size)):
                raise ValueError(
                    f"{self.path} holds {self._found['documents']} documents, but the corpus has changed and has more "
                    "or fewer; accepted: another folder"
                )
        path = shard_path(self.path, number)
        known = written_digest(path)
        if self._digests is not None:
            known = self._digests[number] if number < len(self._digests) else "none"
        check_place(path, known, digest)

    def begin(self, digests: Sequence[str] | None = None) -> None:
        """Marks the folder as unfinished. A finished folder stays finished, and only gets the shards it lacks.

        Args:
            digests: of the documents of all shards, if they are known in advance.

        Raises:
            ValueError: the folder holds more shards.
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
            ValueError: there are no documents, or the folder holds a longer corpus.
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
    """Encodes some documents into a file, unless the file already holds them.

    Raises:
        ValueError: the file holds other documents, or the vectors do not fit the type.
    """
    if not holds(path, documents_digest(documents)):
        vectors = model.encode_document([document.text for document in documents], token_budget, progress=False)
        write_shard(path, documents, vectors.cpu().numpy(), vector_type)


def checked(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents as they are stored, in the same order.

    Raises:
        ValueError: an id occurs twice, or metadata cannot be stored.
    """
    fields = MetadataFields()
    if not isinstance(documents, DocumentReader):  # a DocumentReader finds repeated ids itself
        documents = distinct(documents)
    for document in cleaned(documents):
        fields.add(document)
        yield document


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents, unchanged.

    Raises:
        ValueError: an id occurs twice.
    """
    seen = SeenTexts()
    for document in documents:
        if not seen.add(document.id):
            raise ValueError(f"the id {document.id!r} occurs twice; accepted: unique ids")
        yield document


def chunks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` rows; the last may be shorter."""
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
