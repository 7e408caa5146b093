"""Encoding a corpus of any size: document by document from the source, shard by shard to the disk."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..files import write_json
from ..modeling_rabtriever import RabtrieverModel
from .corpus_vectors import MANIFEST, CorpusVectors, encoder_fingerprint, holds, shard_path, shard_paths, write_shard
from .documents import Document, DocumentReader
from .vector_types import VECTOR_TYPES


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
    if vector_type not in VECTOR_TYPES:
        raise ValueError(f"vector_type is {vector_type!r}; accepted: {', '.join(VECTOR_TYPES)}")
    if documents_per_shard < 1:
        raise ValueError(f"documents_per_shard is {documents_per_shard}; accepted: 1 or more")
    folder = Path(folder)
    record = {
        "model": encoder_fingerprint(model),
        "embedding_dim": model.config.embedding_dim,
        "vector_type": vector_type,
        "documents_per_shard": documents_per_shard,
    }
    start(folder, record)
    count = 0
    total = _length(documents)
    if not isinstance(documents, DocumentReader):  # which has looked for repeated ids
        documents = distinct(documents)
    with logging.tqdm(total=total, unit="document", desc="encoding") as bar:
        for number, chunk in enumerate(chunks(documents, documents_per_shard)):
            path = shard_path(folder, number)
            if not holds(path, chunk):
                vectors = model.encode_document([document.text for document in chunk], token_budget, progress=False)
                write_shard(path, chunk, vectors.cpu().numpy(), vector_type)
            count += len(chunk)
            bar.update(len(chunk))
    finish(folder, record, count, -(-count // documents_per_shard))
    return CorpusVectors(folder)


def start(folder: Path, record: dict[str, Any]) -> None:
    """Marks a folder as belonging to a model and settings, or compares.

    Raises:
        ValueError: it belongs to others.
        OSError: it cannot be written.
    """
    path = folder / MANIFEST
    if path.exists():
        found = json.loads(path.read_text())
        differing = [name for name, value in record.items() if found.get(name) != value]
        if differing:
            listed = ", ".join(f"{name} {found.get(name)} (this call: {record[name]})" for name in differing)
            raise ValueError(f"{folder} holds vectors with {listed}; choose another folder")
    write_json(path, {**record, "done": False})
    for left in folder.glob(".*.tmp"):  # of a killed process
        left.unlink(missing_ok=True)


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


def chunks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Lists of `size` documents; the last may be shorter."""
    iterator = iter(documents)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _length(documents: Iterable[Document]) -> int | None:
    try:
        return len(documents)  # type: ignore[arg-type]
    except TypeError:
        return None
