"""Converts students saved before version 0.1, which saved the predictor in parts. Their vectors stay the same."""

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
# Settings for inputs beyond the last layer's states of a single text, each with the value that turns it off.
_REMOVED = {"shared_dim": (0,), "query_anchors": ([],), "document_anchors": ([],), "feature_whitening": (False,)}


def converted(
    path: Any, stored: Mapping[str, Tensor], hub: Mapping[str, Any]
) -> tuple[RabtrieverConfig, dict[str, Tensor]]:
    """Converts a student saved before version 0.1 to the format of version 0.1.

    The heads of the query's MLP become blocks of one matrix, which includes the answer direction. A document's own
    score becomes a row of the document map.

    Returns:
        Configuration and weights: the backbone's as in the file, the predictor's in fp32.

    Raises:
        ValueError: the student reads several layers, anchors or input embeddings, which version 0.1 does not, or its
            files do not belong together.
    """
    old = read_json(cached_file(path, "config.json", **hub))
    text = AutoConfig.for_model(**old["text_config"])
    found = {name: old.get(name, values[0]) for name, values in _REMOVED.items()}
    found["feature_layers"] = old.get("feature_layers", [-1])
    accepted = {**_REMOVED, "feature_layers": ([-1], [text.num_hidden_layers])}
    for name, value in found.items():
        if value not in accepted[name]:
            raise ValueError(
                f"{path} is a student saved before version 0.1 with {name} {str(value)[:60]}; accepted: "
                f"{accepted[name][0]}. Distil it again, or load it with its own code (trust_remote_code=True) in a "
                "process without this package"
            )
    weights = load_state_dict(str(cached_file(path, "model.safetensors", **hub)))
    if weights.keys() != stored.keys():
        raise ValueError(f"{path} is a student saved before version 0.1 in several files; accepted: one file")
    mapped = old["predictor_type"] == "hadamard"
    backbone = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    own = {name: value for name, value in weights.items() if name not in backbone}
    odd = sorted(_names(mapped, bool(old.get("document_prior"))) ^ own.keys())
    odd += [name for name, value in own.items() if not value.is_floating_point()]
    if odd:
        raise ValueError(
            f"{path} has missing or unexpected weights: {', '.join(odd[:5])}; accepted: this student's weights"
        )
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
    layers = ["query_hidden", "query_output"]
    if mapped:
        layers += ["document_map", "shift"]
    if has_prior:
        layers.append("prior")
    names = {f"predictor.{layer}.{part}" for layer in layers for part in ("weight", "bias")} | {SIGN}
    if mapped:
        names.add("predictor.output_map.weight")
    return names


def _predictor(old: Mapping[str, Tensor], mapped: bool) -> dict[str, Tensor]:
    weights = {name.removeprefix("predictor."): value for name, value in old.items()}
    true_row, false_row = weights["answer_head.weight"]
    direction = true_row - false_row
    if mapped:
        direction = direction @ weights["output_map.weight"]
    output, hidden = weights["query_output.weight"].squeeze(-1), weights["query_hidden.weight"]
    heads = len(hidden) // output.shape[1]  # separate MLPs: one block each
    kept = {
        "query_hidden.weight": hidden,
        "query_hidden.bias": weights["query_hidden.bias"],
        "query_output.weight": direction[:, None] * torch.block_diag(*output.chunk(heads)),
        "query_output.bias": direction * weights["query_output.bias"],
    }
    if mapped:
        kept |= {name: weights[name] for name in ("document_map.weight", "document_map.bias")}
    if "prior.weight" in weights:  # a document's own score: every query's factor for it is 1
        width = kept["query_output.weight"].shape[1]
        more = {"query_output.weight": torch.zeros(1, width), "query_output.bias": torch.ones(1)}
        more |= {f"document_map.{name}": weights[f"prior.{name}"] for name in ("weight", "bias")}
        kept |= {name: torch.cat([kept[name], row]) for name, row in more.items()}
    return kept
