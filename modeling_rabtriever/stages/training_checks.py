"""Checks of what a stage trains, and of its settings for transformers' trainer, before the first step."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks  # type: ignore[attr-defined]  # which it only imports
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import refusing
from ..reranking.backbone import BackboneArguments, read_backbone_config
from .checks import check_folder, check_model

_CAUSAL = "AutoModelForCausalLM"
_LEAST = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
    "eval_accumulation_steps": 1, "learning_rate": 0, "weight_decay": 0, "warmup_steps": 0, "max_grad_norm": 0,
    "dataloader_num_workers": 0, "seed": 0,
}  # fmt: skip


def check_language_model(
    backbone: BackboneArguments, config: TrainingArguments, trust_remote_code: bool, lora: Any = None
) -> Any:
    """The configuration of the language model that a stage starts from.

    This builds the model without its weights, with the attention and the adapters that training will use.

    Raises:
        ValueError: the model cannot be read or built, or does not fit the attention or the adapters.
    """
    source, attention = backbone.model_name_or_path, backbone.attn_implementation
    if source is None:
        raise ValueError("model_name_or_path is missing; accepted: a Hub id, a folder, or a .json configuration")
    if source.endswith(".json"):
        found = AutoConfig.for_model(**read_backbone_config(source))
    else:
        found = check_model("model_name_or_path", source, backbone.model_revision, trust_remote_code)
        if found.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and _CAUSAL not in getattr(found, "auto_map", {}):
            raise ValueError(f"model_name_or_path {source} is a {found.model_type}; accepted: a causal language model")
    if attention == "flex_attention" and config.device.type == "cpu":
        raise ValueError(
            "attn_implementation is 'flex_attention'; accepted on CPUs: sdpa, eager (it has no gradient there)"
        )
    with torch.device("meta"):
        accepted = "a causal language model, and an attention that it supports and that is installed: sdpa, eager, ..."
        with refusing(f"model_name_or_path {source} with attn_implementation {attention} cannot be built", accepted):
            model = AutoModelForCausalLM.from_config(
                found, attn_implementation=attention, trust_remote_code=trust_remote_code
            )
        if lora is not None and lora.use_peft:
            adapters = lora.peft_config(found.get_text_config().hidden_size)
            with refusing("the LoRA settings do not fit", "lora_target_modules that the backbone has"):
                get_peft_model(model, adapters)
    return found


def check_training(config: TrainingArguments, *metrics: str) -> None:
    """Checks settings of transformers' trainer that would fail after hours or silently have no effect.

    Raises:
        ValueError: a setting is out of range, the best model is to be chosen by none of `metrics`, or the optimizer,
            the schedule or a tracker cannot be built.
    """
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{name} is {value}; accepted: {least} or more")
    for setting in fields(config):
        value = getattr(config, setting.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{setting.name} is {value}; accepted: a finite number")
    if config.seed >= 1 << 32:
        raise ValueError(f"seed is {config.seed}; accepted: less than 2^32")
    if config.max_steps <= 0 and not config.num_train_epochs > 0:
        raise ValueError(
            f"max_steps is {config.max_steps}, num_train_epochs {config.num_train_epochs}; accepted: one above 0"
        )
    if 0 < config.max_steps < config.warmup_steps:
        raise ValueError(
            f"warmup_steps is {config.warmup_steps} and max_steps is {config.max_steps}, so the run would never reach "
            "learning_rate; accepted: at most max_steps, or a share of it below 1"
        )
    check_folder("output_dir", str(config.output_dir))
    resumed = config.resume_from_checkpoint
    if resumed is not None and not Path(resumed).is_dir():
        raise ValueError(
            f"resume_from_checkpoint is {resumed!r}; accepted: the folder of a checkpoint, or none (an interrupted "
            "stage resumes by itself)"
        )
    best = config.metric_for_best_model
    if best is not None and best.removeprefix("eval_") not in metrics:
        raise ValueError(f"metric_for_best_model is {best!r}; accepted: {', '.join(metrics)}")
    _check_optimizer(config)
    with refusing(f"report_to is {config.report_to}", "installed trackers, or none"):
        for callback in get_reporting_integration_callbacks(config.report_to):
            callback()


def _check_optimizer(config: TrainingArguments) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    with refusing(f"optim {config.optim} with its settings cannot be used", "an optimizer and settings that fit it"):
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(config)
        optimizer = kind([weight], **{"lr": config.learning_rate, **settings})
    schedule = f"lr_scheduler_type {config.lr_scheduler_type}, lr_scheduler_kwargs {config.lr_scheduler_kwargs}"
    with refusing(f"{schedule} cannot be used", "a schedule of transformers and settings that fit it"):
        schedule_kwargs: Any = config.lr_scheduler_kwargs  # a mapping by now, even if a string was given
        get_scheduler(config.lr_scheduler_type, optimizer, 0, 1, schedule_kwargs)
