"""Document prefixes of a corpus on disk, for a teacher that scores the same documents many times."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import read_record, read_tensors, write_json, write_tensors
from ..identity import backbone_fingerprint, reading_fingerprint, same_encoder
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_prefix_cache import DocumentPrefixes, model_fingerprint
from ..progress import progress

MANIFEST = "prefixes.json"
_FIELDS = {"model": str, "backbone": str, "prompt": str, "documents": int, "shards": list, "done": bool}
_DIGEST_KEY = "documents"  # in a shard's metadata


class PrefixFiles:
    """The prefixes of a corpus in safetensors shards; one shard at a time is in memory.

    `PrefixFiles.write` makes them. After an interruption call it again: finished shards are kept.

    Args:
        folder: that `write` wrote.

    Raises:
        ValueError: `write` has not finished this folder.

    Examples:
        >>> from modeling_rabtriever import GenerativeRerankerModel, example
        >>> from modeling_rabtriever.retrieval import PrefixFiles
        >>> teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
        >>> prefixes = PrefixFiles.write("runs/prefixes", teacher, ["bring the sponge", "bring the lantern"])
        >>> prefixes.score(teacher, ["I spilled my drink"]).shape
        torch.Size([1, 2])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        record = read_record(self.folder / MANIFEST, **_FIELDS)
        if not record.get("done"):
            raise ValueError(f"{folder} holds no finished prefixes; accepted: a folder that PrefixFiles.write finished")
        self._record = record

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._record["documents"])

    def __iter__(self) -> Iterator[DocumentPrefixes]:
        """The shards, in the order of the documents, on the CPU.

        Raises:
            ValueError: a shard is missing, broken or of other documents.
        """
        for number, digest in enumerate(self._record["shards"]):
            yield DocumentPrefixes.from_tensors(_read(self.folder, number, digest), self._record["model"])

    def score(
        self, reranker: GenerativeRerankerModel, queries: Sequence[str], token_budget: int | None = None
    ) -> Tensor:
        """Log-odds of every query against every document: `(n, m)` fp32.

        Raises:
            ValueError: a query is blank, a shard is missing, broken or of other documents, or the prefixes were made by
                another model or prompt.
        """
        if not same_encoder(backbone_fingerprint(reranker), self._record["backbone"]):
            raise ValueError(f"{self.folder} holds prefixes of another model; accepted: prefixes of this model")
        if reading_fingerprint(reranker.processor) != self._record["prompt"]:
            raise ValueError(
                f"{self.folder} holds prefixes of another prompt; accepted: prefixes of this model's prompt"
            )
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
        """Computes the prefixes of all documents and writes them atomically, shard by shard. Rewrites broken shards.

        Args:
            folder: output folder; created if missing.
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
        path = Path(folder) / MANIFEST
        starts = range(0, len(documents), documents_per_shard)
        parts = [documents[start : start + documents_per_shard] for start in starts]
        record: dict[str, Any] = {
            "model": model_fingerprint(reranker),
            "backbone": backbone_fingerprint(reranker),
            "prompt": reading_fingerprint(reranker.processor),
            "documents": len(documents),
            "shards": [hashlib.sha256(json.dumps(list(part)).encode()).hexdigest()[:16] for part in parts],
            "done": False,
        }
        if path.exists():
            _check_owner(path, record)
        else:
            write_json(path, record)
        with progress(len(parts), "reading documents", "shard", quiet=len(parts) < 2) as bar:
            for number, part in enumerate(parts):
                if not _holds(Path(folder), number, record["shards"][number]):
                    tensors = reranker.prefill(part, token_budget).tensors()
                    write_tensors(_shard(Path(folder), number), tensors, {_DIGEST_KEY: record["shards"][number]})
                bar.update()
        write_json(path, {**record, "done": True})
        return cls(folder)


def _check_owner(path: Path, record: dict[str, Any]) -> None:
    found = read_record(path, **_FIELDS)
    others = [name for name in record if name not in ("backbone", "done") and found[name] != record[name]]
    if not same_encoder(found["backbone"], record["backbone"]):
        others.append("backbone")
    if others:
        raise ValueError(
            f"{path.parent} holds prefixes with another {', another '.join(others)}; accepted: another folder, or the "
            "model, prompt, documents and documents_per_shard it was made with"
        )


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.safetensors"


def _read(folder: Path, number: int, digest: str) -> dict[str, Tensor]:
    path = _shard(folder, number)
    tensors, metadata = read_tensors(path)
    if metadata.get(_DIGEST_KEY) != digest:
        raise ValueError(
            f"{path} holds prefixes of other documents; accepted: the shard as it was written. PrefixFiles.write "
            "rewrites it"
        )
    return tensors


def _holds(folder: Path, number: int, digest: str) -> bool:
    try:
        _read(folder, number, digest)
    except ValueError:
        return False  # missing or broken: rewritten
    return True
