"""Which student made a vector: a fingerprint of everything that changes vectors, comparable across dtypes."""

import hashlib
import json
import re
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from .modeling_prefix_cache import floating_weights, model_fingerprint
from .modeling_rabtriever import RabtrieverModel
from .processing_rabtriever import RabtrieverProcessor

PROJECTIONS = 8
# Of a projection, per tensor. Rounding to bf16 moves a tensor's projection by 0.002; other weights move it by 1.4.
TOLERANCE = 0.01
# Rounding does not change a tensor's norm, so a change of one percent may count as much as the tolerance.
_NORM_WEIGHT = 30
# Settings that do not change what a backbone computes. All others may, under any name that a family gives them.
_NEUTRAL = re.compile(
    "transformers_version|_name_or_path|architectures|auto_map|(torch_)?dtype|quantization_config|use_cache|return_dict|"
    "output_.*|.*_token_id|.*dropout.*|.*_pdrop|layerdrop|initializer_.*|.*init_std|chunk_size_feed_forward|problem_type|"
    "id2label|label2id|pretraining_tp|task_specific_params"
)
_READING = (
    "true_answer", "false_answer", "instruction", "document_template", "query_template", "max_document_length",
    "max_query_length", "query_truncation_side",
)  # fmt: skip
_FORM = re.compile(f"[0-9a-f]{{16}}-[0-9a-f]{{{4 + 8 * PROJECTIONS}}}")
_sketches: WeakKeyDictionary[PreTrainedModel, tuple[str, str]] = WeakKeyDictionary()
_readings: WeakKeyDictionary[RabtrieverProcessor, str] = WeakKeyDictionary()


def encoder_fingerprint(model: RabtrieverModel) -> str:
    """A fingerprint of the student that made a vector: its weights by content, its prompt and its tokenizer.

    Predictor, prompt, tokenizer and settings enter exactly. The backbone enters as `PROJECTIONS` sums over all of its
    weights with fixed signs, so the same backbone in another dtype is recognised: compare with `same_encoder`. The
    result is kept until the model's weights change. It takes a few seconds per billion weights on a CPU.

    Returns:
        16 hexadecimal digits, a hyphen, and 8 for each projection.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.retrieval import encoder_fingerprint
        >>> student, again = (RabtrieverModel.from_pretrained(example("household")) for _ in range(2))
        >>> encoder_fingerprint(student) == encoder_fingerprint(again)
        True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.predictor.state_dict().items()):
        digest.update(name.encode() + _bytes(tensor.float()))
    digest.update(json.dumps([model.config.feature_poolings, model.config.unit_vectors]).encode())
    digest.update(backbone_settings(model.config.text_config).encode())
    digest.update(reading_fingerprint(model.processor).encode())
    return f"{digest.hexdigest()[:16]}-{_sketch(model.backbone)}"


def backbone_fingerprint(model: Any) -> str:
    """A fingerprint of a teacher's or student's backbone, settings and weights, like `encoder_fingerprint`."""
    settings = hashlib.sha256(backbone_settings(model.config.text_config).encode()).hexdigest()[:16]
    return f"{settings}-{_sketch(model.backbone)}"


def backbone_settings(config: PreTrainedConfig) -> str:
    """The settings of a backbone that may change what it computes, as JSON, without those that are off or not set."""
    kept = {
        name: value
        for name, value in config.to_dict().items()
        if not (value is None or value is False or value in ([], {}) or _NEUTRAL.fullmatch(name))
    }
    return json.dumps(kept, sort_keys=True, default=str)


def same_encoder(first: str, second: str) -> bool:
    """Whether two fingerprints are of the same student, in any dtype."""
    if first == second:
        return True
    if first[:17] != second[:17] or not all(_FORM.fullmatch(fingerprint) for fingerprint in (first, second)):
        return False
    first_count, first_sums = _numbers(first[17:])
    second_count, second_sums = _numbers(second[17:])
    if first_count != second_count:
        return False
    return bool((first_sums - second_sums).abs().max() <= TOLERANCE * first_count**0.5)


def shown(fingerprint: str) -> str:
    """A fingerprint, shortened for messages."""
    return fingerprint[:29]


def reading_fingerprint(processor: RabtrieverProcessor) -> str:
    """A digest of how texts become token ids: prompt and limits, vocabulary and rules of the tokenizer."""
    if processor not in _readings:
        tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
        rules = {name: tokenizer.get(name) for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        reading = {name: getattr(processor, name) for name in _READING}
        content = json.dumps([reading, rules, processor.document_ids("a")], sort_keys=True)
        _readings[processor] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return _readings[processor]


def _sketch(backbone: PreTrainedModel) -> str:
    state = model_fingerprint(backbone)  # from samples, so it is fast: tells whether the weights have changed
    known = _sketches.get(backbone)
    if known is None or known[0] != state:
        weights = [(name, tensor) for name, tensor in floating_weights(backbone) if tensor.numel()]
        total = torch.stack([_projections(name, tensor) for name, tensor in weights]).sum(0).float()
        known = _sketches[backbone] = (state, f"{len(weights):04x}{_bytes(total).hex()}")
    return known[1]


def _projections(name: str, tensor: Tensor) -> Tensor:
    """`a^T W b / |W|` for fixed sign vectors, plus the weighted log norm: a tensor -> `(PROJECTIONS,)` fp64, CPU."""
    matrix = tensor.detach().float().reshape(-1, tensor.shape[-1] if tensor.dim() else 1)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))

    def signs(count: int) -> Tensor:
        return torch.randint(2, (count, PROJECTIONS), generator=generator).float().mul(2).sub(1)

    rows, columns, norm_signs = signs(len(matrix)), signs(matrix.shape[1]), signs(1)[0]
    norm = matrix.norm().double().cpu()
    if not norm > 0:
        return norm_signs.double()
    sums = ((matrix @ columns.to(matrix.device)) * rows.to(matrix.device)).sum(0).double().cpu()
    return sums / norm + _NORM_WEIGHT * norm_signs * norm.log()


def _numbers(sketch: str) -> tuple[int, Tensor]:
    return int(sketch[:4], 16), torch.frombuffer(bytearray.fromhex(sketch[4:]), dtype=torch.float32)


def _bytes(tensor: Any) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().numpy().tobytes()
    return content
