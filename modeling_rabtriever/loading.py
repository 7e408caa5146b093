"""Loads teachers and students from a folder or the Hub, for the command line and the stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from .configuration_generative_reranker import GenerativeRerankerConfig
from .configuration_rabtriever import RabtrieverConfig
from .conversion import SIGN, converted
from .errors import refusing
from .modeling_checks import check_loaded, check_source
from .modeling_generative_reranker import GenerativeRerankerModel
from .modeling_rabtriever import RabtrieverModel
from .processing_rabtriever import RabtrieverProcessor

DTYPES = ("auto", "float32", "bfloat16", "float16")
_CLASSES = {GenerativeRerankerConfig.model_type: GenerativeRerankerModel, RabtrieverConfig.model_type: RabtrieverModel}


def load_model(
    path: str | Path,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Loads a teacher or a student, ready for inference.

    This package's own classes are used, so no code from the folder runs. Other code never leads to a prompt on the
    terminal: it runs if `trust_remote_code` is true, and otherwise loading fails.

    Args:
        path: folder, or id on the Hub.
        dtype: of the backbone: `auto` (as saved), `float32`, `bfloat16` or `float16`.
        device: where it runs: `cpu`, `cuda`, `cuda:1`, ...
        revision: branch, tag or commit of a Hub model.
        trust_remote_code: whether code from the repository may run.

    Returns:
        A `GenerativeRerankerModel` or `RabtrieverModel` in evaluation mode.

    Raises:
        ValueError: `path` is neither or cannot be loaded, or `dtype` or `device` cannot be used.

    Examples:
        >>> from modeling_rabtriever import example
        >>> from modeling_rabtriever.loading import load_model
        >>> type(load_model(example("household"))).__name__, type(load_model(example("household", "teacher"))).__name__
        ('RabtrieverModel', 'GenerativeRerankerModel')
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; accepted: {', '.join(DTYPES)}")
    place = checked_device(device)
    hub: dict[str, Any] = {} if revision is None else {"revision": revision}
    with refusing(
        f"{path} cannot be loaded", "a folder or Hub id of a teacher or student, as save_pretrained wrote it"
    ):
        stored = check_source(path, hub)
        if SIGN in stored:
            return _load_old_student(path, stored, hub, dtype).to(place)
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **hub)
        if config.model_type not in _CLASSES:
            raise ValueError(
                f"{path} is a {config.model_type} model; accepted: a teacher (generative_reranker) or a student "
                "(rabtriever)"
            )
        if not stored:
            raise ValueError(f"{path} has no model.safetensors, whole or in parts; accepted: a model with its weights")
        check_sizes(path, config, stored)
        model: Any = AutoModel.from_pretrained(
            path, config=config, dtype=dtype, trust_remote_code=trust_remote_code, **hub
        ).eval()
        if model._processor is None:
            raise ValueError(
                f"{path} has no prompt: its processor_config.json is missing or not a RabtrieverProcessor's; "
                "accepted: the folder as save_pretrained wrote it"
            )
    with refusing(f"{path} does not fit on {place}", "a device with more memory, or a smaller dtype"):
        return model.to(place)


def _load_old_student(path: str | Path, stored: Mapping[str, Tensor], hub: dict[str, Any], dtype: str) -> Any:
    """A student saved before version 0.1."""
    config, weights = converted(path, stored, hub)
    check_sizes(path, config, weights)
    saved = next(value.dtype for name, value in weights.items() if name.startswith("backbone."))
    student: Any = RabtrieverModel._from_config(config, dtype=saved if dtype == "auto" else getattr(torch, dtype))
    student.predictor.float()
    missing, unexpected = student.load_state_dict(weights, strict=False)
    info = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": ()}
    check_loaded(path, student, info, weights, complete=True)
    student.processor = RabtrieverProcessor.from_pretrained(path, config=config, trust_remote_code=False, **hub)
    return student.eval()


def checked_device(device: str | torch.device) -> torch.device:
    """The device, after a check that this machine can compute on it.

    Raises:
        ValueError: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = 0 if accelerator is None else torch.accelerator.device_count()
    found = ["cpu", *(f"{accelerator.type}:{index}" for index in range(count) if accelerator is not None)]
    with refusing(f"device is {str(device)!r}", f"a device of this machine: {', '.join(found)}"):
        place = torch.device(str(device))
        if place.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.zeros(1, device=place)
    return place


def check_sizes(path: str | Path, config: Any, stored: Mapping[str, Tensor]) -> None:
    """Compares a configuration with the weights that `check_source` found, before memory is allocated for the model.

    Raises:
        ValueError: the configuration and the weights belong to different models.
    """
    layers = getattr(config.text_config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > max(len(stored), 1):
        raise ValueError(
            f"{path}: num_hidden_layers is {layers} in its config.json, but its weights are {len(stored)} tensors; "
            "accepted: the configuration its weights were saved with"
        )
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in _CLASSES[config.model_type](config).state_dict().items()}
    quantised = getattr(config, "quantization_config", None) is not None
    for name in stored.keys() & wanted.keys():
        packed = quantised and not stored[name].is_floating_point()  # several numbers in one
        if stored[name].shape != wanted[name] and not packed:
            raise ValueError(
                f"{path}: {name} is {tuple(stored[name].shape)} in its weights, {tuple(wanted[name])} by its "
                "config.json; accepted: the configuration its weights were saved with"
            )
