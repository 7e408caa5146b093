"""How an encoder reads a text and pools its states into one vector, by the files beside its weights."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import normalizers
from transformers import PreTrainedConfig

from ..errors import refusing
from ..modeling_checks import optional_file, read_json

_PIECES = ("Transformer", "Pooling", "Normalize")  # modules of a sentence-transformers folder that are supported
_POOLINGS = {"cls": "first", "mean": "mean", "lasttoken": "last"}
_ACCEPTED = "a model as sentence-transformers saves it"


class EncoderSettings(NamedTuple):
    """The settings that a sentence-transformers folder adds to a text model. Other models have the defaults.

    Args:
        pooling: how the states become one vector.
        query_prompt: text before every query.
        document_prompt: text before every document.
        lowercase: whether texts are lower-cased before the tokenizer reads them.
        is_retriever: whether the model already ranks documents for a query, before any training here.
        unit_vectors: whether its vectors have length 1.
    """

    pooling: str = "mean"
    query_prompt: str = ""
    document_prompt: str = ""
    lowercase: bool = False
    is_retriever: bool = False
    unit_vectors: bool = False


def check_text_encoder(source: str, config: PreTrainedConfig) -> None:
    """Refuses a model that cannot be a student's encoder, before any weight is read.

    Args:
        source: Hub id or folder, for messages.
        config: of the encoder.

    Raises:
        ValueError: the model is an encoder-decoder, reads more than text, or needs code of its own.
    """
    accepted = (
        "a text model of transformers that is only an encoder or only a decoder, such as BERT, ModernBERT or Qwen3"
    )
    if not type(config).__module__.startswith("transformers."):  # a saved student does not include such code
        raise ValueError(f"encoder {source} is a {config.model_type} model with code of its own; accepted: {accepted}")
    if config.is_encoder_decoder:
        raise ValueError(f"encoder {source} is a {config.model_type} encoder-decoder; accepted: {accepted}")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers")
    if missing := [name for name in sizes if not isinstance(getattr(config, name, None), int)]:
        raise ValueError(
            f"encoder {source} is a {config.model_type} model without {', '.join(missing)}; accepted: {accepted}"
        )


def read_settings(source: str) -> EncoderSettings:
    """The settings in a sentence-transformers folder or Hub repository; the defaults for any other model.

    Raises:
        ValueError: the modules, the pooling or the prompts are not supported, or a file is malformed.
    """
    found = partial(optional_file, source, hub_options={})
    listed = found("modules.json")
    if listed is None:
        return EncoderSettings()
    with refusing(f"encoder {source}: its modules.json cannot be read", _ACCEPTED):
        modules = json.loads(Path(listed).read_text(encoding="utf-8"))
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        places = [module["path"] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds) <= set(_PIECES):
        raise ValueError(
            f"encoder {source} has modules {', '.join(kinds) or 'none'}; accepted: Transformer, Pooling, Normalize"
        )
    file = found(f"{places[1]}/config.json")
    if file is None:
        raise ValueError(f"encoder {source} has no {places[1]}/config.json; accepted: {_ACCEPTED}")

    def read(path: Any) -> dict[str, Any]:
        return {} if path is None else read_json(path)

    pooling = read(file)
    prompts = read(found("config_sentence_transformers.json")).get("prompts") or {}
    query, document = _prompts(source, prompts)
    if pooling.get("include_prompt") is False and (query or document):
        raise ValueError(
            f"encoder {source} excludes its prompts from pooling; accepted: a model that pools over all tokens "
            "(include_prompt: true), or one without prompts"
        )
    lowercase = bool(read(found("sentence_bert_config.json")).get("do_lower_case"))
    unit = "Normalize" in kinds
    return EncoderSettings(_pooling(source, pooling), query, document, lowercase, is_retriever=True, unit_vectors=unit)


def lowercasing(tokenizer: Any) -> Any:
    """A copy of a tokenizer that lower-cases every text first."""
    own = copy.deepcopy(tokenizer)
    first = normalizers.Lowercase()
    other = own.backend_tokenizer.normalizer
    own.backend_tokenizer.normalizer = first if other is None else normalizers.Sequence([first, other])
    return own


def special_tokens(tokenizer: Any) -> tuple[str, str]:
    """The special tokens that the tokenizer puts before and after a text, as text for a template."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
    before = tokenizer.convert_ids_to_tokens(whole[:start])
    after = tokenizer.convert_ids_to_tokens(whole[start + len(plain) :])
    return "".join(before), "".join(after)


def _pooling(source: str, settings: dict[str, Any]) -> str:
    mode = settings.get("pooling_mode")
    modes: list[Any] = []
    if isinstance(mode, str):
        modes = [mode]
    elif isinstance(mode, list):
        modes = mode
    elif mode is None:  # the form of versions before 5.4
        modes = [
            name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for name, on in settings.items()
            if name.startswith("pooling_mode_") and on is True
        ]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        named = ", ".join(map(str, modes)) or "nothing"
        raise ValueError(f"encoder {source} pools by {named}; accepted: one of {', '.join(_POOLINGS)}")
    return _POOLINGS[modes[0]]


def _prompts(source: str, prompts: Any) -> tuple[str, str]:
    """The prompts that sentence-transformers puts before queries and documents by default."""
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ValueError(f"encoder {source} has prompts {str(prompts)[:60]}; accepted: a mapping of names to texts")
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), None)
    return prompts.get("query") or "", document or ""
