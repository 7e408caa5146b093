"""What the files beside an encoder's weights say of how it reads a text and makes one vector of it."""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import normalizers
from transformers import PreTrainedConfig
from transformers.utils import cached_file  # type: ignore[attr-defined]  # which it only imports

from ..errors import refusing
from ..modeling_checks import read_json

_PIECES = ("Transformer", "Pooling", "Normalize")  # of a sentence-transformers folder that a start can be made of
_POOLINGS = {"cls": "first", "mean": "mean", "lasttoken": "last"}
_ACCEPTED = "a model as sentence-transformers saves it"


class Retriever(NamedTuple):
    """What a sentence-transformers folder adds to a text model; of other models the defaults.

    Args:
        pooling: how its states become one vector.
        query_prompt: what stands before a query.
        document_prompt: what stands before a document.
        lowercase: whether texts are read in small letters, whatever the tokenizer does.
        alike: whether its vectors of a query and of a relevant document are alike before any training.
    """

    pooling: str = "mean"
    query_prompt: str = ""
    document_prompt: str = ""
    lowercase: bool = False
    alike: bool = False


def check_text_encoder(source: str, config: PreTrainedConfig) -> None:
    """Refuses a configuration that describes no model a student can stand on, before any weight is read.

    Args:
        source: for messages.
        config: of the encoder.

    Raises:
        ValueError: it is an encoder with a decoder, reads other things than text alone, or needs code of its own.
    """
    accepted = "a text model of transformers with an encoder or a decoder alone, such as BERT, ModernBERT or Qwen3"
    if not type(config).__module__.startswith("transformers."):  # what a saved student could not carry
        raise ValueError(f"encoder {source} is a {config.model_type} model with code of its own; accepted: {accepted}")
    if config.is_encoder_decoder:
        raise ValueError(f"encoder {source} is a {config.model_type} model with a decoder behind; accepted: {accepted}")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers")
    if missing := [name for name in sizes if not isinstance(getattr(config, name, None), int)]:
        raise ValueError(
            f"encoder {source} is a {config.model_type} model without {', '.join(missing)}; accepted: {accepted}"
        )


def retriever(source: str, hub: dict[str, Any]) -> Retriever:
    """What a folder or repository says beyond the model itself.

    Args:
        source: folder or Hub id.
        hub: options of `from_pretrained` that say where files lie.

    Raises:
        ValueError: its modules, its pooling or its prompts are not supported, or a file is malformed.
    """

    def found(name: str) -> Any:
        # Private flags: without them a file that is not there and a download that was cut are the same OSError.
        missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        return cached_file(source, name, **hub, **missing)

    listed = found("modules.json")
    if listed is None:
        return Retriever()
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
    settings, general, reading = (
        {} if path is None else read_json(path)
        for path in (file, found("config_sentence_transformers.json"), found("sentence_bert_config.json"))
    )
    query, document = _prompts(source, general.get("prompts") or {})
    if settings.get("include_prompt") is False and (query or document):
        raise ValueError(
            f"encoder {source} leaves its prompts out when it pools; accepted: a model that pools over all tokens "
            "(include_prompt: true), or one without prompts"
        )
    lowercase = bool(reading.get("do_lower_case"))
    return Retriever(_pooling(source, settings), query, document, lowercase, alike=True)


def in_small_letters(tokenizer: Any) -> Any:
    """A copy of a tokenizer that turns every text into small letters first."""
    own = copy.deepcopy(tokenizer)
    first = normalizers.Lowercase()
    other = own.backend_tokenizer.normalizer
    own.backend_tokenizer.normalizer = first if other is None else normalizers.Sequence([first, other])
    return own


def special_tokens(tokenizer: Any) -> tuple[str, str]:
    """What the tokenizer puts before and behind a text, as it would be written in a template."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
    before, behind = whole[:start], whole[start + len(plain) :]
    return tuple("".join(tokenizer.convert_ids_to_tokens(part)) for part in (before, behind))  # type: ignore[return-value]


def _pooling(source: str, settings: dict[str, Any]) -> str:
    mode = settings.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode) if isinstance(mode, list) else []
    if mode is None:  # as versions before 5.4 wrote it
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
    """Those that sentence-transformers puts before queries and documents when it is not told otherwise."""
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ValueError(f"encoder {source} has prompts {str(prompts)[:60]}; accepted: a text by name")
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), None)
    return prompts.get("query") or "", document or ""
