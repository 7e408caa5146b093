"""Encoding a corpus of any size: document by document from the source, shard by shard to the disk."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, TypeVar

from transformers.utils import logging

from ..files import read_record, write_json
from ..identity import encoder_fingerprint
from ..modeling_rabtriever import RabtrieverModel
from .corpus_vectors import MANIFEST, CorpusVectors, holds, shard_path, shard_paths, write_shard
from .documents import Document, DocumentReader
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
    """Encodes documents into a folder; called again after an interruption, it encodes what is missing.

    A shard is written in one piece, so that a killed process loses the shard in work. What is finished is recognised by
    its documents, so the source is read again from its start. Memory holds one shard, and a number for each id.

    Args:
        model: the student.
        documents: `DocumentReader`, or any iterable; its length, if it has one, is the progress bar's.
        folder: where to; created if missing.
        vector_type: how numbers are kept: `float32`, `float16` (half the bytes) or `int8` with one factor per vector
            (a quarter).
        documents_per_shard: documents per file, encoded together.
        token_budget: padded tokens per forward pass; `None` fits the device.

    Returns:
        The finished folder.

    Raises:
        ValueError: there are no documents, an id occurs twice, a setting is out of range, or the folder belongs to
            another model, other settings or another corpus.
        OSError: the folder cannot be written, or the disk is full; finished shards are kept.
    """
    folder = Path(folder)
    record = start(folder, model, vector_type, documents_per_shard)
    count = 0
    total = length_hint(documents) or None
    if not isinstance(documents, DocumentReader):  # which has looked for repeated ids
        documents = distinct(documents)
    with logging.tqdm(total=total, unit="document", desc="encoding") as bar:
        for number, chunk in enumerate(chunks(documents, documents_per_shard)):
            encode_shard(model, shard_path(folder, number), chunk, vector_type, token_budget)
            count += len(chunk)
            bar.update(len(chunk))
    finish(folder, record, count, -(-count // documents_per_shard))
    return CorpusVectors(folder)


def encode_shard(
    model: RabtrieverModel, path: Path, documents: Sequence[Document], vector_type: str, token_budget: int | None
) -> None:
    """Encodes some documents into a file, unless it is there.

    Raises:
        ValueError: the file holds other documents, or the vectors do not fit the type.
    """
    if not holds(path, documents):
        vectors = model.encode_document([document.text for document in documents], token_budget, progress=False)
        write_shard(path, documents, vectors.cpu().numpy(), vector_type)


def start(folder: Path, model: RabtrieverModel, vector_type: str, documents_per_shard: int) -> dict[str, Any]:
    """Marks a folder as belonging to a model and settings, or compares; returns that mark.

    Raises:
        ValueError: a setting is out of range, or the folder belongs to others.
        OSError: it cannot be written.
    """
    if vector_type not in VECTOR_TYPES:
        raise ValueError(f"vector_type is {vector_type!r}; accepted: {', '.join(VECTOR_TYPES)}")
    if documents_per_shard < 1:
        raise ValueError(f"documents_per_shard is {documents_per_shard}; accepted: 1 or more")
    record = {
        "model": encoder_fingerprint(model),
        "embedding_dim": model.config.embedding_dim,
        "vector_type": vector_type,
        "documents_per_shard": documents_per_shard,
    }
    path = folder / MANIFEST
    if path.exists():
        found = read_record(path)
        differing = [name for name, value in record.items() if found.get(name) != value]
        if differing:
            listed = ", ".join(f"{name} {found.get(name)} (this call: {record[name]})" for name in differing)
            raise ValueError(f"{folder} holds vectors with {listed}; choose another folder")
    write_json(path, {**record, "done": False})
    for left in folder.glob(".*.tmp"):  # of a killed process
        left.unlink(missing_ok=True)
    return record


def finish(folder: Path, record: dict[str, Any], count: int, shards: int) -> None:
    """Marks a folder as finished.

    Raises:
        ValueError: there are no documents, or more shards than they fill.
    """
    if not count:
        raise ValueError("the corpus has no documents; accepted: at least one")
    if len(shard_paths(folder)) > shards:
        raise ValueError(f"{folder} holds shards of a longer corpus; choose another folder")
    write_json(folder / MANIFEST, {**record, "documents": count, "done": True})


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
