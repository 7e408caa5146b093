"""What a student's predictor reads of the texts of one side, and its cache for an encoder that does not train."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import RabtrieverModel, RabtrieverProcessor
from ..files import read_tensors, write_tensors
from ..processing_rabtriever import TokenIds
from ..trainers.processes import gather, is_main, on_each, on_main, own_part
from .teacher_states import fingerprint


def side_ids(processor: RabtrieverProcessor, side: str, texts: Sequence[str]) -> list[TokenIds]:
    """Token ids of texts as `"query"` or as `"document"`."""
    return processor.query_ids(texts) if side == "query" else processor.document_ids(texts)


def read_features(student: RabtrieverModel, side: str, texts: Sequence[str], progress: bool = False) -> Tensor:
    """Features of texts of one side: `(len(texts), feature_size)` fp32, on the student's device, without a gradient."""
    return student._map_prompts(student.pool, side_ids(student.processor, side, texts), None, progress)


def cached_features(folder: Path, student: RabtrieverModel, side: str, texts: Sequence[str]) -> Tensor:
    """The same, read from `folder` or computed once: `(len(texts), feature_size)` fp32, on the CPU.

    Args:
        folder: the cache; a file there belongs to one backbone, prompt, pooling and list of texts.
        student: whose features.
        side: `"query"` or `"document"`.
        texts: of that side.

    Raises:
        ValueError: the file there is not as it was written.
    """
    identity = fingerprint(student, texts, [side, json.dumps(student.config.feature_poolings)])
    path = folder / f"features-{side}-{identity}.safetensors"
    if not on_main(path.exists):
        own = own_part(texts)
        parts = gather(on_each(lambda: read_features(student, side, own, is_main()).cpu() if len(own) else None))
        features = torch.cat([part for part in parts if part is not None])
        on_main(lambda: write_tensors(path, {"features": features}))
    return on_each(lambda: _kept(path, len(texts)))


def _kept(path: Path, count: int) -> Tensor:
    features = read_tensors(path)[0].get("features")
    if features is None or len(features) != count:
        raise ValueError(f"{path} holds no features of {count} texts; delete it to have it made again")
    return features
