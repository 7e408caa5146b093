"""Students of versions before 0.1, whose predictor was saved in parts, as students of today: the same vectors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_utils import load_state_dict
from transformers.utils import cached_file  # type: ignore[attr-defined]  # which it only imports

from .configuration_rabtriever import RabtrieverConfig
from .modeling_checks import read_json

SIGN = "answer_head.weight"  # a tensor that only these students have
# What they could read beyond the last layer's states of a text by itself, and the value that means nothing of it.
_GONE = {"shared_dim": (0,), "query_anchors": ([],), "document_anchors": ([],), "feature_whitening": (False,)}


def converted(
    path: Any, stored: Mapping[str, Tensor], hub: Mapping[str, Any]
) -> tuple[RabtrieverConfig, dict[str, Tensor]]:
    """A student that was saved before version 0.1, as version 0.1 saves it.

    Heads of the query's MLP become blocks of one matrix, the answer direction a part of it, and a document's own score
    a row of the document map.

    Args:
        path: its folder or Hub id.
        stored: from `check_source`; all tensors lie in one file.
        hub: options of `from_pretrained` that say where files lie.

    Returns:
        Configuration and weights; the backbone's are as they are in the file, the predictor's fp32.

    Raises:
        ValueError: it reads several layers, anchors or input embeddings, which version 0.1 does not, or its files do
            not belong together.
    """
    old = read_json(cached_file(path, "config.json", **hub))
    text = AutoConfig.for_model(**old["text_config"])
    found = {name: old.get(name, values[0]) for name, values in _GONE.items()}
    found["feature_layers"] = old.get("feature_layers", [-1])
    accepted = {**_GONE, "feature_layers": ([-1], [text.num_hidden_layers])}
    for name, value in found.items():
        if value not in accepted[name]:
            raise ValueError(
                f"{path} is a student of a version before 0.1 with {name} {str(value)[:60]}; accepted: "
                f"{accepted[name][0]}. Distil it again, or load it in a process without this package through its own "
                "code (trust_remote_code=True)"
            )
    weights = load_state_dict(str(cached_file(path, "model.safetensors", **hub)))
    if weights.keys() != stored.keys():
        raise ValueError(f"{path} is a student of a version before 0.1 in several files; accepted: one file")
    mapped = old["predictor_type"] == "hadamard"
    backbone = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    own = {name: value for name, value in weights.items() if name not in backbone}
    odd = sorted(_names(mapped, bool(old.get("document_prior"))) ^ own.keys())
    odd += [name for name, value in own.items() if not value.is_floating_point()]
    if odd:
        raise ValueError(f"{path} holds too much or too little: {', '.join(odd[:5])}; accepted: this student's weights")
    predictor = _predictor({name: value.float() for name, value in own.items()}, mapped)
    config = RabtrieverConfig(
        text_config=text,
        embedding_dim=len(predictor["query_output.bias"]),
        query_hidden_size=len(predictor["query_hidden.bias"]),
        feature_poolings=old.get("feature_poolings", ["last", "mean"]),
        document_map=mapped,
    )
    return config, {**backbone, **{f"predictor.{name}": value for name, value in predictor.items()}}


def _names(mapped: bool, has_prior: bool) -> set[str]:
    layers = ["query_hidden", "query_output", *(["document_map", "shift"] if mapped else [])]
    layers += ["prior"] if has_prior else []
    names = {f"predictor.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    return {SIGN, *names, *(["predictor.output_map.weight"] if mapped else [])}


def _predictor(old: Mapping[str, Tensor], mapped: bool) -> dict[str, Tensor]:
    weights = {name.removeprefix("predictor."): value for name, value in old.items()}
    true_row, false_row = weights["answer_head.weight"]
    direction = true_row - false_row
    if mapped:
        direction = direction @ weights["output_map.weight"]
    output, hidden = weights["query_output.weight"].squeeze(-1), weights["query_hidden.weight"]
    heads = len(hidden) // output.shape[1]  # separate MLPs: a block each
    kept = {
        "query_hidden.weight": hidden,
        "query_hidden.bias": weights["query_hidden.bias"],
        "query_output.weight": direction[:, None] * torch.block_diag(*output.chunk(heads)),
        "query_output.bias": direction * weights["query_output.bias"],
    }
    if mapped:
        kept |= {name: weights[name] for name in ("document_map.weight", "document_map.bias")}
    if "prior.weight" in weights:  # a document's own score: its factor of a query is 1, whatever the query
        width = kept["query_output.weight"].shape[1]
        more = {"query_output.weight": torch.zeros(1, width), "query_output.bias": torch.ones(1)}
        more |= {f"document_map.{name}": weights[f"prior.{name}"] for name in ("weight", "bias")}
        kept |= {name: torch.cat([kept[name], row]) for name, row in more.items()}
    return kept
