"""What a folder must be for its weights to be read: nothing from elsewhere, no pickle, no tensor left out."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import load_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file  # type: ignore[attr-defined]

_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of weights that are not quantised


def optional_file(path: Any, name: str, hub_options: Mapping[str, Any]) -> str | None:
    """A file's place, or `None`. Without the private flags a missing file and a cut download are the same OSError."""
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(path, name, **hub_options, **missing)


def check_source(path: Any, hub_options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Refuses a folder or repository that reads other files than its own weights, before any weight is read.

    Args:
        path: folder or Hub id.
        hub_options: those of `from_pretrained` that say where files lie.

    Returns:
        The tensors of its safetensors weights by name, on the meta device: shape and number type alone.

    Raises:
        ValueError: it holds an adapter, its configuration or index names other weights, its tokenizer's configuration
            names files, it has two sets of weights, or a file of weights is cut off.
    """
    found = partial(optional_file, path, hub_options=hub_options)
    if found("adapter_config.json") is not None:
        raise ValueError(
            f"{path} holds adapter_config.json, which would put other weights on this model or load another one; "
            "accepted: a model with its adapter merged (merge_and_unload), and no such file"
        )
    for name, key in (("config.json", "transformers_weights"), ("tokenizer_config.json", "fast_tokenizer_files")):
        file = found(name)
        if file is not None and read_json(file).get(key) is not None:
            raise ValueError(f"{path}: {key} in its {name} names files to read; accepted: a model without it")
    weights, index = found(SAFE_WEIGHTS_NAME), found(SAFE_WEIGHTS_INDEX_NAME)
    names = [] if index is None else _index_names(path, read_json(index))
    if weights is not None and names and all(map(found, names)):  # transformers does not read those saved last
        raise ValueError(f"{path} holds {SAFE_WEIGHTS_NAME} and {names[0]}; accepted: one set of weights")
    names = names if weights is None else [SAFE_WEIGHTS_NAME]
    return {tensor: value for name in names for tensor, value in _header(path, name, found(name)).items()}


def check_loaded(
    path: Any, model: PreTrainedModel, info: Mapping[str, Any], stored: Mapping[str, Tensor], complete: bool
) -> None:
    """Refuses a model some of whose weights are not those of the files: transformers fills them with random numbers.

    Args:
        path: for messages.
        model: as it was loaded.
        info: `output_loading_info` of `from_pretrained`.
        stored: from `check_source`.
        complete: whether the files hold this very model, so that a further tensor is of another one.

    Raises:
        ValueError: tensors are missing, too many, of another shape, no weights, or not quantised as they should be.
    """
    mismatched = [f"{name} {tuple(here)} for {tuple(wanted)}" for name, here, wanted in info["mismatched_keys"]]
    whole = [] if getattr(model, "is_quantized", False) else _whole_numbers(model, stored)
    for found, fault in (
        (mismatched, "tensors of another shape"),
        (whole, "tensors of whole numbers or truth values, which are no weights"),
        (info["unexpected_keys"] if complete else (), "tensors this model does not have"),
    ):
        if found:
            raise ValueError(f"{path} holds {fault}: {_listed(found)}; accepted: this model's own weights")
    quantizer = getattr(model, "hf_quantizer", None)
    if getattr(quantizer, "pre_quantized", False) and all(tensor.dtype in _NUMBERS for tensor in stored.values()):
        raise ValueError(
            f"{path}: quantization_config in its config.json says that its weights are quantised, and none is; "
            "accepted: the configuration its weights were saved with"
        )
    if info["missing_keys"]:
        raise ValueError(f"{path} lacks weights of this model: {_listed(info['missing_keys'])}; accepted: all of them")


def read_json(file: Any) -> dict[str, Any]:
    """A JSON object from a file, or a ValueError."""
    try:
        content: Any = PreTrainedConfig._dict_from_json_file(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); accepted: the file as save_pretrained wrote it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {str(content)[:60]!r}; accepted: a JSON object")
    return content


def _index_names(path: Any, index: Mapping[str, Any]) -> list[str]:
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{path}: its index of weights has no weight_map; accepted: tensor -> file of this folder")
    for name in places.values():
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise ValueError(f"{path}: its index of weights names {name!r}; accepted: safetensors files of this folder")
    return sorted(set(places.values()))


def _header(path: Any, name: str, file: Any) -> dict[str, Tensor]:
    if file is None:
        raise ValueError(f"{path}: {name}, which its index of weights names, is missing; accepted: the whole model")
    try:
        return load_state_dict(file, map_location="meta")
    except Exception as error:  # safetensors has an exception of its own, which is not imported here
        raise ValueError(f"{path}: {name} is no whole safetensors file ({error}); accepted: a whole one") from error


def _whole_numbers(model: PreTrainedModel, stored: Mapping[str, Tensor]) -> list[str]:
    # A plain language model's tensors lack the wrapper's prefix; masks that old checkpoints hold have no counterpart.
    odd = [name for name, tensor in stored.items() if tensor.dtype not in _NUMBERS]
    own = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()] if odd else []
    return [name for name in odd if any(f".{known}".endswith(f".{name}") for known in own)]


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
