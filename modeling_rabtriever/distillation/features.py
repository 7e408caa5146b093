"""Features of queries or documents, the predictor's input, and their cache for an encoder that does not train."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import RabtrieverModel, RabtrieverProcessor
from ..files import read_tensors, write_tensors
from ..processing_rabtriever import TokenIds
from ..trainers.processes import gather, is_main, on_each, on_main, own_part
from .cache_fingerprints import fingerprints


def side_ids(processor: RabtrieverProcessor, side: str, texts: Sequence[str]) -> list[TokenIds]:
    """Token ids of texts as `"query"` or as `"document"`."""
    return processor.query_ids(texts) if side == "query" else processor.document_ids(texts)


def read_features(student: RabtrieverModel, side: str, texts: Sequence[str], progress: bool = False) -> Tensor:
    """Features of texts of one side: `(len(texts), feature_size)` fp32, on the student's device, without a gradient."""
    return student._map_prompts(student.pool, side_ids(student.processor, side, texts), None, progress)


def cached_features(folder: Path, student: RabtrieverModel, side: str, texts: Sequence[str]) -> Tensor:
    """The features of `read_features`, from `folder` or computed once: `(len(texts), feature_size)` fp32, on the CPU.

    Args:
        folder: of the cache; a file in it belongs to one backbone, prompt, pooling and list of texts.
        student: whose encoder computes the features.
        side: `"query"` or `"document"`.
        texts: of that side.

    Raises:
        ValueError: the file is not as it was written.
    """
    path = on_main(lambda: folder / f"features-{side}-{_digest(student, texts)}.safetensors")
    if not on_main(path.exists):
        own = own_part(texts)
        parts = gather(on_each(lambda: read_features(student, side, own, is_main()).cpu() if len(own) else None))
        features = torch.cat([part for part in parts if part is not None])
        on_main(lambda: write_tensors(path, {"features": features}))
    return on_each(lambda: _kept(path, len(texts)))


def _digest(student: RabtrieverModel, texts: Sequence[str]) -> str:
    identity = [fingerprints(student, texts), student.config.feature_poolings]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _kept(path: Path, count: int) -> Tensor:
    features = read_tensors(path)[0].get("features")
    if features is None or len(features) != count:
        raise ValueError(f"{path} does not hold the features of {count} texts; delete it to compute them again")
    return features
