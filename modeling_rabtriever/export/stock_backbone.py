"""Writes a backbone that other libraries load: stock weights in fp32, in a family that keeps the saved tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, LlamaConfig, PreTrainedConfig, PreTrainedModel

from ..errors import refusing
from ..files import write_json

Weights = dict[str, Tensor]
IDENTITY = "torch.nn.modules.linear.Identity"
# Settings that a Qwen2 shares with a Llama. Its projections of queries, keys and values have biases.
_SHARED_WITH_LLAMA = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_parameters", "attention_dropout", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def check_backbone(model: Any) -> None:
    """Raises a ValueError if no stock backbone gives the same states as this teacher's or student's."""
    parameters = model.backbone.parameters()
    if getattr(model, "is_quantized", False) or not all(tensor.is_floating_point() for tensor in parameters):
        raise ValueError("this model is quantised; accepted for an export: its full weights (float32, bfloat16)")
    config, longest = model.config.text_config, model._longest_prompt(model.processor)
    if config.model_type == "qwen2" and "sliding_attention" in config.layer_types and config.sliding_window < longest:
        raise ValueError(
            f"a layer of this backbone attends to {config.sliding_window} tokens, fewer than the longest prompt, "
            f"{longest}; accepted for an export of a Qwen2: full attention (use_sliding_window: false)"
        )


def stock_backbone(model: Any) -> tuple[PreTrainedConfig, Weights]:
    """The configuration and the fp32 weights, on the CPU, of a stock backbone with the same states as the model's.

    For some families, `AutoTokenizer` builds its own tokenizer and ignores `tokenizer.json`, so the prompt is lost.
    Qwen2, the one in common use, is therefore written as a Llama whose projections have biases, with the same states.

    Args:
        model: a teacher or a student that `check_backbone` accepts.
    """
    base = model.backbone.base_model
    weights = {name: tensor.detach().float().cpu() for name, tensor in base.state_dict().items()}
    config = type(base.config).from_dict(base.config.to_dict())
    if config.model_type == "qwen2":
        for layer in range(config.num_hidden_layers):
            projection = f"layers.{layer}.self_attn.o_proj"
            weights[f"{projection}.bias"] = torch.zeros(len(weights[f"{projection}.weight"]))
        shared = {name: getattr(config, name) for name in _SHARED_WITH_LLAMA}
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        config = LlamaConfig(**shared, head_dim=head_dim, attention_bias=True, mlp_bias=False)
    config.dtype = torch.float32
    return config, weights


def write_backbone(config: PreTrainedConfig, weights: Weights, folder: Path) -> None:
    """Writes a backbone without a head, as `AutoModel` loads it.

    Raises:
        ValueError: transformers builds another model from this configuration.
    """
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    # A student leaves out BERT's pooler, which nothing reads. Zeros keep other libraries from warning about it.
    unread = {name: torch.zeros(own.shape) for name, own in model.state_dict().items() if name.startswith("pooler.")}
    _fill(model, unread | weights)
    _write(model, folder)


def write_classifier(config: PreTrainedConfig, weights: Weights, direction: Tensor, folder: Path) -> None:
    """Writes a classifier with one label, whose logit is `direction . h` for the state `h` of the last token.

    Args:
        config: of the backbone; its `pad_token_id` tells padding from a text's last token.
        weights: of the backbone.
        direction: `(d,)` fp32.
        folder: output folder.

    Raises:
        ValueError: transformers has no classifier for this family.
    """
    config.num_labels = 1
    # Log-odds instead of probabilities: the setting of sentence-transformers from version 4 on, and the older one.
    config.sentence_transformers = {"activation_fn": IDENTITY}
    config.sbert_ce_default_activation_function = IDENTITY
    config.use_sep_token = True  # vLLM then gives the pair to the tokenizer, which holds the prompt
    with (
        refusing(
            f"{config.model_type} has no classifier in transformers that this model fits",
            "a family that has one (Llama, Mistral, Qwen2, Qwen3, Gemma, Phi, GPT-2, GPT-NeoX, ...); this model can be "
            "served through AutoModel",
        ),
        torch.device("meta"),
    ):
        model = AutoModelForSequenceClassification.from_config(config)
        head: Any = model.score
        if head.bias is not None or head.weight.shape != (1, len(direction)):
            raise RuntimeError(f"its head is {head}")
    _fill(model.base_model, weights)
    head.weight = nn.Parameter(direction.detach().float().cpu()[None].clone())
    _write(model, folder)


def _fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    with refusing("transformers builds another backbone from this model's configuration", "a backbone of transformers"):
        model.load_state_dict(weights, assign=True)


def _write(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:  # transformers 4 reads it here; its default is 10000
        config["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    write_json(path, config)
