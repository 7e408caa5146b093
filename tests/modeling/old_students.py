"""Folders as versions before 0.1 wrote students: their settings and tensors, by the names and shapes of that time."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from modeling_rabtriever import GenerativeRerankerModel

WIDTH, STATE = 10, 32  # of the index; of the teacher's states


def old_settings(**changes: Any) -> dict[str, Any]:
    settings = {
        "predictor_type": "hadamard", "num_heads": 1, "predictor_hidden_size": STATE, "feature_layers": [-1],
        "feature_poolings": ["last", "mean"], "document_prior": False, "feature_whitening": False, "shared_dim": 0,
        "query_anchors": [], "document_anchors": [],
    }  # fmt: skip
    settings |= changes
    if settings["predictor_type"] == "paper":
        return {**settings, "embedding_dim": STATE}
    return {**settings, "embedding_dim": WIDTH + settings["document_prior"]}


def old_weights(settings: dict[str, Any]) -> dict[str, Tensor]:
    """Random tensors of a predictor and the teacher's two answer rows, by the names and in the shapes of that time."""
    torch.manual_seed(2)
    features = STATE * len(settings["feature_poolings"])
    heads, units = settings["num_heads"], settings["predictor_hidden_size"]
    mapped = settings["predictor_type"] == "hadamard"
    factors = WIDTH if mapped else STATE
    shapes: dict[str, tuple[int, ...]] = {
        "answer_head.weight": (2, STATE),
        "predictor.query_hidden.weight": (heads * units, features),
        "predictor.query_hidden.bias": (heads * units,),
        "predictor.query_output.weight": (factors, units, 1),
        "predictor.query_output.bias": (factors,),
    }
    if mapped:
        shapes |= {"predictor.document_map.weight": (factors, features), "predictor.document_map.bias": (factors,)}
        shapes |= {"predictor.output_map.weight": (STATE, factors)}
        shapes |= {"predictor.shift.weight": (STATE, features), "predictor.shift.bias": (STATE,)}
    if settings["document_prior"]:
        shapes |= {"predictor.prior.weight": (1, features), "predictor.prior.bias": (1,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_old(
    folder: Path, reranker: GenerativeRerankerModel, dtype: torch.dtype = torch.float32, **changes: Any
) -> dict[str, Any]:
    """A folder of that time; returns its settings."""
    reranker.processor.save_pretrained(folder)
    settings = old_settings(**changes)
    about = {
        "model_type": "rabtriever",
        "architectures": ["RabtrieverModel"],
        "auto_map": {"AutoModel": "modeling_rabtriever.RabtrieverModel"},
        "dtype": str(dtype).removeprefix("torch."),
        "text_config": reranker.config.text_config.to_dict(),
        "true_token_id": reranker.config.true_token_id,
        "false_token_id": reranker.config.false_token_id,
    }
    (folder / "config.json").write_text(json.dumps({**about, **settings}))
    backbone = reranker.backbone.base_model.state_dict()
    weights = {f"backbone.{name}": value.to(dtype).contiguous() for name, value in backbone.items()}
    save_file({**weights, **old_weights(settings)}, folder / "model.safetensors", metadata={"format": "pt"})
    return settings
