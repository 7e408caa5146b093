"""The backbone a teacher starts from: a pretrained causal language model, or a fresh one built from a configuration."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer, set_seed
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .. import (
    GenerativeRerankerConfig,
    GenerativeRerankerModel,
    RabtrieverConfig,
    RabtrieverModel,
    RabtrieverProcessor,
)
from ..errors import reason, refusing
from ..recipes import backbone_path
from ..retrieval.json_lines import keys_once
from .prompts import PromptArguments, SourceArguments


@dataclass
class BackboneArguments(SourceArguments):
    """How the teacher's language model is loaded."""

    dtype: str = field(
        default="float32", metadata={"help": "Type of the weights.", "choices": ["float32", "bfloat16", "float16"]}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention implementation for training, as in from_pretrained: 'sdpa', 'eager', "
            "'flash_attention_2', ... On CPUs in bf16 'eager' trains fastest: 135M parameters take 2.8 s backward "
            "instead of 4.5."
        },
    )


def build_reranker(
    backbone: BackboneArguments,
    prompt: PromptArguments,
    texts: Iterable[str],
    seed: int,
    trust_remote_code: bool,
) -> GenerativeRerankerModel:
    """An untrained reranker with its processor.

    Args:
        backbone: where the weights or the configuration come from.
        prompt: the processor's settings.
        texts: training texts of the tokenizer if the backbone starts from scratch; never evaluation queries.
        seed: of the weights of a backbone from scratch.
        trust_remote_code: whether code from the backbone's repository may run.

    Raises:
        ValueError: the configuration file is missing or malformed, or the prompt does not fit the tokenizer.

    Examples:
        >>> from modeling_rabtriever.reranking import BackboneArguments, PromptArguments, build_reranker
        >>> backbone = BackboneArguments("backbones/qwen2-1m.json")
        >>> teacher = build_reranker(backbone, PromptArguments(), ["bring the sponge"] * 9, 0, trust_remote_code=False)
        >>> teacher.predict([("I spilled my drink", "bring the sponge")]).shape
        torch.Size([1])
    """
    source = backbone.model_name_or_path
    if source is None:
        raise ValueError("model_name_or_path is missing; accepted: a Hub id, a folder, or a .json configuration")
    scratch = source.endswith(".json")
    tokenizer: Any
    hub: dict[str, Any] = {"revision": backbone.model_revision, "trust_remote_code": trust_remote_code}
    if scratch:
        settings = read_backbone_config(source)
        tokenizer = train_tokenizer(texts, settings["vocab_size"], (prompt.true_answer, prompt.false_answer))
        own = {"vocab_size": len(tokenizer)}  # unused embeddings would only cost memory
        own |= {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
        text_config = AutoConfig.for_model(**{**settings, **own})
    else:
        accepted = "a Hub id or a folder of a causal language model"
        with refusing(f"model_name_or_path {source} cannot be loaded", accepted):
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
            text_config = AutoConfig.from_pretrained(source, **hub)
    processor = RabtrieverProcessor(tokenizer, **vars(prompt))
    config = GenerativeRerankerConfig(
        text_config=text_config, true_token_id=processor.true_token_id, false_token_id=processor.false_token_id
    )
    if scratch:
        set_seed(seed)
        reranker = GenerativeRerankerModel(config).to(getattr(torch, backbone.dtype))
    else:
        reranker = GenerativeRerankerModel.from_pretrained(
            source, config=config, dtype=getattr(torch, backbone.dtype), **hub
        )
    reranker.processor = processor
    check_backbone(reranker)
    if backbone.attn_implementation is not None:
        reranker.set_attn_implementation(backbone.attn_implementation)
    return reranker


def padded(tokenizer: Any) -> Any:
    """A copy of a tokenizer with a padding token, which trainers need; padding is masked, so any token will do."""
    own = copy.deepcopy(tokenizer)
    if own.pad_token_id is None:
        own.pad_token = own.eos_token or own.bos_token or own.unk_token or own.convert_ids_to_tokens(0)
    return own


def check_student(config: GenerativeRerankerConfig) -> None:
    """Checks that a student can be built on a teacher's backbone; takes no memory.

    Raises:
        ValueError: the backbone without its head differs from the model that AutoModel would load for the student.
    """
    text_config: Any = config.text_config
    with torch.device("meta"):
        teacher = GenerativeRerankerModel(config).backbone.base_model
        student = RabtrieverModel(RabtrieverConfig(text_config=text_config)).backbone
    own, wanted = teacher.state_dict().keys(), student.state_dict().keys()
    if own != wanted:
        raise ValueError(
            f"the backbone {text_config.model_type} without its head has other weights ({min(own ^ wanted)}) than "
            "AutoModel; accepted: a causal language model that AutoModel loads without its head"
        )


@torch.no_grad()
def check_backbone(reranker: GenerativeRerankerModel) -> None:
    """Checks that a score does not depend on longer prompts in the batch or on cached document states.

    Raises:
        ValueError: a score does, or no student can be built on the backbone.
    """
    config: Any = reranker.config
    check_student(config)
    limit = reranker.processor.max_document_length
    queries, documents = ["a", "which one of them, and why?"], ["b", "one two three. " * (limit // 3 + 1)]
    pairs = [(query, document) for document in documents for query in queries]
    alone = torch.cat([reranker.predict([pair]) for pair in pairs])
    spread = 1e-3 if reranker.dtype == torch.float32 else 0.1
    allowed = spread * max(float(alone.abs().max()), 1.0)
    for scores, how in (
        (reranker.predict(pairs, token_budget=1 << 20), "if the batch has longer prompts"),
        (reranker.score(queries, documents).T.flatten(), "if document states are cached"),
    ):
        difference = float((scores - alone).abs().max())
        if not difference <= allowed:  # also refuses NaN
            raise ValueError(
                f"the backbone {config.text_config.model_type}: scores change by {difference:.3g} {how}; accepted: at "
                f"most {allowed:.1g}, from causal language models that mask padding"
            )


def train_tokenizer(texts: Iterable[str], vocab_size: int, answers: tuple[str, str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens that splits text like Qwen2's.

    The answers become special tokens. The class is Qwen2's because `AutoTokenizer` requires it for `qwen2` models.
    """
    blank = Qwen2Tokenizer(extra_special_tokens=list(answers), padding_side="left")
    return blank.train_new_from_iterator(texts, vocab_size, show_progress=False)


def read_backbone_config(name_or_path: str) -> dict[str, Any]:
    """The configuration of a language model from scratch, from a .json file (`recipes.backbone_path`).

    Raises:
        ValueError: the file is missing, is not a JSON object with every key once, or describes no model that
            transformers can build and run.
    """
    path = backbone_path(name_or_path)
    accepted = "a .json configuration of a causal language model, such as backbones/qwen2-1m.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=keys_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"model_name_or_path {path} is not a model configuration ({reason(error)}); accepted: {accepted}"
        ) from error
    if not isinstance(settings, dict) or not {"model_type", "vocab_size"} <= settings.keys():
        raise ValueError(f'{path} lacks "model_type" or "vocab_size"; accepted: {accepted}')
    if settings["model_type"] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(f"{path}: model_type is {settings['model_type']!r}; accepted: {accepted}")
    with refusing(f"model_name_or_path {path} describes a model that cannot run", accepted), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
        model(
            input_ids=torch.zeros(1, 2, dtype=torch.long)
        )  # free on this device; finds sizes that do not fit together
    return settings
