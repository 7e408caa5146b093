"""What training a teacher would take, worked out without its weights: `--dry_run true` of the stage.

The model is built on the meta device, from the Hub's configuration where it can be reached, else from the copy in
`recipes/backbones`.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from .. import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverProcessor
from ..recipes import BACKBONES, backbone_path
from ..tasks.named import load_task
from .backbone import BackboneArguments, PromptArguments, check_student
from .pairs import NegativeArguments, negative_count

GIGA = 1e9


def plan(
    backbone: BackboneArguments, prompt: PromptArguments, negatives: NegativeArguments, lora: Any, config: Any, run: Any
) -> dict[str, Any]:
    """Parameters, memory, steps and FLOPs of a teacher's training.

    Returns:
        `parameters`, `trainable`; `memory_gb` by part, per device, at the longest prompts; `steps`, `pairs`, `flops`
        (`None` where neither `max_steps` nor readable data say how long it trains); `notes`, the assumptions.

    Raises:
        ValueError: no configuration of the backbone is known, the answers are the same text or not single tokens, or
            the prompt does not fit the window.
    """
    notes: list[str] = []
    hub = {"revision": backbone.model_revision, "trust_remote_code": config.trust_remote_code}
    text_config = _text_config(backbone, hub, notes)
    tokens, answers = _prompt(backbone, prompt, text_config, hub, notes)
    answer_ids = {"true_token_id": answers[0], "false_token_id": answers[1]}
    reranker_config = GenerativeRerankerConfig(text_config=text_config, **answer_ids)
    check_student(reranker_config)
    with torch.device("meta"):
        model = GenerativeRerankerModel(reranker_config)
        parameters = model.num_parameters()
        if lora.use_peft:
            from peft import get_peft_model

            trainable = get_peft_model(model.backbone, lora.peft_config()).get_nb_trainable_parameters()[0]
        else:
            trainable = parameters
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[backbone.dtype]
    batch_tokens = math.ceil(config.per_device_train_batch_size / devices) * tokens
    layers, hidden, inner = text_config.num_hidden_layers, text_config.hidden_size, text_config.intermediate_size
    half = 2  # bytes of an activation: passes in bf16, as on any GPU of today
    # One layer holds about 8 vectors of the hidden and 3 of the inner size per token; checkpointing keeps one vector
    # per layer and recomputes one layer at a time.
    per_layer = batch_tokens * (8 * hidden + 3 * inner) * half
    kept = layers * batch_tokens * hidden * half + per_layer if config.activation_checkpointing else layers * per_layer
    memory = {
        "weights": parameters * width / GIGA,
        "gradients": trainable * width / GIGA,
        "optimiser (AdamW)": trainable * 2 * width / GIGA,
        "activations": kept / GIGA,
    }
    pairs_per_epoch = _pairs_per_epoch(run, negatives)
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    steps = config.max_steps if config.max_steps > 0 else None
    if steps is None and pairs_per_epoch is not None:
        steps = math.ceil(config.num_train_epochs * pairs_per_epoch / per_step)
    # Forward 2, gradient of the activations 2, of the weights 2 (adapters: next to nothing), recomputing 2.
    passes = 4 + 2 * (not lora.use_peft) + 2 * bool(config.activation_checkpointing)
    pairs = None if steps is None else steps * per_step
    flops = None if pairs is None else passes * (parameters - _embeddings(model)) * tokens * pairs
    return {
        "parameters": parameters,
        "trainable": trainable,
        "tokens_per_pair_at_most": tokens,
        "devices": devices,
        "memory_gb": memory | {"sum": sum(memory.values())},
        "steps": steps,
        "pairs": pairs,
        "flops": flops,
        "notes": notes,
    }


def report(found: dict[str, Any]) -> str:
    """The plan as text."""
    unknown = "unknown without --data or --max_steps"
    lines = [
        f"parameters            {found['parameters']:>16,}  (trainable {found['trainable']:,})",
        f"tokens per pair       {found['tokens_per_pair_at_most']:>16,}  (at most)",
        f"steps                 {unknown if found['steps'] is None else format(found['steps'], '>16,')}",
        f"pairs                 {unknown if found['pairs'] is None else format(found['pairs'], '>16,')}",
        f"FLOPs                 {unknown if found['flops'] is None else format(found['flops'], '>16.2e')}",
        f"memory per device, GB (of {found['devices']}, nothing sharded)",
    ]
    lines += [f"  {name:<20}{value:>16.2f}" for name, value in found["memory_gb"].items()]
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _text_config(backbone: BackboneArguments, hub: dict[str, Any], notes: list[str]) -> Any:
    source = str(backbone.model_name_or_path)
    if source.endswith(".json"):
        return AutoConfig.for_model(**json.loads(backbone_path(source).read_text()))
    try:
        return AutoConfig.from_pretrained(source, **hub)
    except OSError:
        copy = BACKBONES / f"{source.rpartition('/')[2].lower()}.json"
        if not copy.is_file():
            known = ", ".join(sorted(path.stem for path in BACKBONES.glob("*.json")))
            raise ValueError(
                f"model_name_or_path {source} cannot be reached and {copy.name} is not in {BACKBONES.name}/; accepted "
                f"without network: {known}"
            ) from None
        notes.append(f"configuration read from {copy.name}, not from the Hub")
        return AutoConfig.for_model(**json.loads(copy.read_text()))


def _prompt(
    backbone: BackboneArguments, prompt: PromptArguments, text_config: Any, hub: dict[str, Any], notes: list[str]
) -> tuple[int, tuple[int, int]]:
    """Tokens of the longest pair, and ids of the answers."""
    if prompt.true_answer == prompt.false_answer:
        raise ValueError(f"true_answer and false_answer are both {prompt.true_answer!r}; accepted: two that differ")
    window = text_config.max_position_embeddings
    try:
        tokenizer = AutoTokenizer.from_pretrained(backbone.model_name_or_path, **hub)
        processor = RabtrieverProcessor(tokenizer, **vars(prompt))
        longest, answers = processor.max_pair_length, (processor.true_token_id, processor.false_token_id)
    except OSError:
        notes.append(
            f"no tokenizer here: that {prompt.true_answer!r} and {prompt.false_answer!r} are single tokens is assumed; "
            "it is checked when training starts. The template is counted as one token per 4 characters"
        )
        template = prompt.document_template + prompt.query_template + prompt.instruction
        longest = prompt.max_document_length + prompt.max_query_length + math.ceil(len(template) / 4)
        answers = (0, 1)
    if longest > window:
        raise ValueError(f"the longest prompt has {longest} tokens; accepted: at most the backbone's window, {window}")
    return longest, answers


def _pairs_per_epoch(run: Any, negatives: NegativeArguments) -> int | None:
    if not Path(run.data).is_dir():
        return None
    task = load_task(run.data, run.skip_bad)
    split = task.split(run.train_split)
    return split.judgements * (1 + negative_count(task, split, negatives))


def _embeddings(model: GenerativeRerankerModel) -> int:
    # A table lookup costs nothing, and of the head two rows are used.
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    tied = getattr(model.config.text_config, "tie_word_embeddings", False)
    return sum(table.numel() for table in (tables[:1] if tied else tables))
