"""Document prefixes of a corpus on disk, for a teacher that scores the same documents again and again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging

from ..files import read_record, read_tensors, write_json, write_tensors
from ..identity import reading_fingerprint
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_prefix_cache import DocumentPrefixes, model_fingerprint


class PrefixFiles:
    """The prefixes of a corpus in safetensors shards; one shard at a time is in memory.

    Made by `PrefixFiles.write`, which a killed process can simply call again: finished shards are kept.

    Args:
        folder: where `write` put them.

    Raises:
        ValueError: the folder is not one that `write` finished.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        record = read_record(self.folder / "prefixes.json", model=str, prompt=str, documents=int, done=bool)
        if not record.get("done"):
            raise ValueError(f"{folder} holds no finished prefixes; accepted: a folder that PrefixFiles.write finished")
        self._model: str = record["model"]
        self._prompt: str = record["prompt"]
        self._count: int = record["documents"]

    def __len__(self) -> int:
        """Number of documents."""
        return self._count

    def __iter__(self) -> Iterator[DocumentPrefixes]:
        """The shards, in the order of the documents, on the CPU."""
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            yield DocumentPrefixes.from_tensors(read_tensors(path)[0], self._model)

    def score(
        self, reranker: GenerativeRerankerModel, queries: Sequence[str], token_budget: int | None = None
    ) -> Tensor:
        """Log-odds of every query against every document: `(n, m)` fp32.

        Raises:
            ValueError: a query is blank, a shard is broken, or the prefixes were made by another model or prompt.
        """
        if reading_fingerprint(reranker.processor) != self._prompt:
            raise ValueError(f"{self.folder} holds prefixes of another prompt; accepted: those of this model's own")
        return torch.cat([reranker.score(queries, shard, token_budget) for shard in self], dim=1)

    @classmethod
    def write(
        cls,
        folder: str | Path,
        reranker: GenerativeRerankerModel,
        documents: Sequence[str],
        documents_per_shard: int = 256,
        token_budget: int | None = None,
    ) -> "PrefixFiles":
        """Reads all documents and writes their prefixes, shard by shard, each atomically.

        Args:
            folder: where to; created if missing.
            reranker: the teacher.
            documents: the corpus.
            documents_per_shard: bounds memory, here and when scoring.
            token_budget: padded tokens per forward pass; `None` fits the device.

        Raises:
            ValueError: there are no documents or one is blank, `documents_per_shard` is below 1, or the folder belongs
                to another model or corpus.
        """
        if not documents or documents_per_shard < 1:
            raise ValueError(
                f"{len(documents)} documents, {documents_per_shard} per shard; accepted: at least one of each"
            )
        path = Path(folder) / "prefixes.json"
        digest = hashlib.sha256("\0".join(map(json.dumps, documents)).encode()).hexdigest()[:16]
        record = {
            "model": model_fingerprint(reranker),
            "prompt": reading_fingerprint(reranker.processor),
            "documents": len(documents),
            "texts": digest,
            "documents_per_shard": documents_per_shard,
            "done": False,
        }
        if path.exists():
            found = read_record(path)
            if {**found, "done": False} != record:
                raise ValueError(
                    f"{folder} holds prefixes of {found}; this call needs {record}; accepted: another folder"
                )
        else:
            write_json(path, record)
        starts = range(0, len(documents), documents_per_shard)
        for number, start in enumerate(logging.tqdm(starts, unit="shard", disable=len(starts) < 2)):
            shard = Path(folder) / f"shard-{number:06d}.safetensors"
            if not shard.exists():
                prefixes = reranker.prefill(documents[start : start + documents_per_shard], token_budget)
                write_tensors(shard, prefixes.tensors())
        write_json(path, {**record, "done": True})
        return cls(folder)
