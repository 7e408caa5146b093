"""What a student starts from: the teacher's backbone, its first layers, or any other text encoder."""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from .. import GenerativeRerankerModel, RabtrieverConfig, RabtrieverProcessor
from ..errors import refusing
from ..modeling_checks import check_loaded, check_source
from .encoder_folders import check_text_encoder, in_small_letters, retriever, special_tokens
from .features import read_features
from .student import TrainingStudent
from .student_arguments import StudentArguments

LORA_RANK = 32
_TRIALS = ("a", "Which one of them, and why? " * 8)  # read alone and in one batch


class Encoder(NamedTuple):
    """A text model with all that decides what it makes of a text.

    Args:
        config: of the model.
        weights: its state dict, without a language-model head.
        processor: how it reads queries and documents.
        poolings: how its states become one vector.
        alike: whether its vectors of a query and of a relevant document are alike before any training.
    """

    config: PreTrainedConfig
    weights: dict[str, torch.Tensor]
    processor: RabtrieverProcessor
    poolings: list[str]
    alike: bool


def teachers_encoder(teacher: GenerativeRerankerModel, layers: int | None = None) -> Encoder:
    """The teacher's own backbone and prompt, or its first `layers` layers.

    Raises:
        ValueError: the backbone has fewer layers.
    """
    config = first_layers(teacher.config.text_config, layers)
    weights = teacher.backbone.base_model.state_dict()
    if layers is not None:
        accepted = "none, as layers of this family cannot be left out"
        with refusing(f"encoder is {layers} layers", accepted), torch.device("meta"):
            kept = AutoModel.from_config(config).state_dict().keys()
        weights = {name: weight for name, weight in weights.items() if name in kept}
    return Encoder(config, weights, teacher.processor, ["last", "mean"], alike=False)


def first_layers(text_config: Any, layers: int | None) -> Any:
    """The configuration of a language model's first layers; `None` keeps all of them.

    Raises:
        ValueError: it has fewer.
    """
    config, depth = copy.deepcopy(text_config), text_config.num_hidden_layers
    if layers is None:
        return config
    if not 1 <= layers <= depth:
        raise ValueError(f"encoder is {layers} layers; accepted: 1 to {depth}, those of the teacher's backbone")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:layers]
    return config


def other_encoder(
    source: str, lengths: RabtrieverProcessor, revision: str | None = None, trust_remote_code: bool = False
) -> Encoder:
    """An encoder of the Hub or from a folder, with its own tokenizer, prompts and pooling.

    A sentence-transformers folder says how it pools and what it puts before a query; of any other model the mean over
    the tokens is taken. Its layers behind the pooling but for a normalisation are refused: the predictor takes their
    place.

    Args:
        source: Hub id or folder.
        lengths: the teacher's prompt, whose limits in tokens are taken as far as the encoder's window allows.
        revision: branch, tag or commit of a Hub model.
        trust_remote_code: whether code from the repository may run.

    Raises:
        ValueError: the model cannot be loaded or lacks weights, is no text model a student can stand on, pools in a
            way that is not supported, or reads texts in a way that no prompt can.
    """
    files = {} if revision is None else {"revision": revision}
    hub: dict[str, Any] = {**files, "trust_remote_code": trust_remote_code}
    accepted = "a Hub id or a folder of a text model that AutoModel loads"
    with refusing(f"encoder {source} cannot be loaded", accepted):
        stored = check_source(source, files)
        config = AutoConfig.from_pretrained(source, **hub)
        check_text_encoder(source, config)
        about = retriever(source, files)
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # by check_loaded
        loaded: Any = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **told, **hub)
    model, info = loaded
    unread = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    check_loaded(f"encoder {source}", model, {**info, "missing_keys": unread}, stored, complete=False)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    if about.lowercase:
        tokenizer = in_small_letters(tokenizer)
    before, behind = special_tokens(tokenizer)
    known = tokenizer.bos_token if tokenizer.bos_token and before.startswith(tokenizer.bos_token) else ""
    document = before.removeprefix(known) + about.document_prompt + "{document}" + behind  # it adds the first itself
    processor = RabtrieverProcessor(
        tokenizer,
        true_answer=None,
        false_answer=None,
        document_template=document,
        query_template=before + about.query_prompt + "{query}" + behind,
        max_document_length=lengths.max_document_length,
        max_query_length=lengths.max_query_length,
        query_truncation_side=lengths.query_truncation_side,
    )
    window = RabtrieverConfig(text_config=config).window
    if window is not None:
        frames = processor.max_prefix_length - lengths.max_document_length
        asked = processor.max_suffix_length - lengths.max_query_length
        if window <= max(frames, asked):
            raise ValueError(
                f"encoder {source} has a window of {window} tokens; accepted: more than the {max(frames, asked)} that "
                "its own prompt takes"
            )
        processor = processor.replace(
            max_document_length=min(lengths.max_document_length, window - frames),
            max_query_length=min(lengths.max_query_length, window - asked),
        )
    for prompt, read in ((about.query_prompt, processor.query_ids), (about.document_prompt, processor.document_ids)):
        if read("a") != [tokenizer(f"{prompt}a")["input_ids"]]:
            raise ValueError(
                f"encoder {source}: its tokenizer puts {before!r} and {behind!r} around a text, which cannot be "
                "written as a prompt; accepted: a tokenizer whose special tokens are known to it as such"
            )
    known_ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values()
    highest = max(*known_ids, *processor.query_ids("a")[0], tokenizer.pad_token_id or 0)
    if highest >= config.vocab_size:
        raise ValueError(
            f"encoder {source}: its tokenizer has the id {highest}; accepted: ids below the {config.vocab_size} rows "
            "of its embeddings"
        )
    return Encoder(config, weights, processor, [about.pooling], about.alike)


def student_of(encoder: Encoder, direction: torch.Tensor, shape: StudentArguments) -> TrainingStudent:
    """A student with a fresh predictor on an encoder of its own.

    Args:
        encoder: what it starts from; its weights are copied. One that is a retriever starts with its own ranking.
        direction: `(d,)`, the difference of the teacher's answer rows.
        shape: form and width of its predictor.

    Raises:
        ValueError: a setting is out of range, or the encoder cannot be read with it, or reads a text otherwise among
            longer ones.
    """
    config = student_config(encoder.config, encoder.poolings, encoder.alike, shape)
    student = TrainingStudent(config, direction)
    dtype = next(weight.dtype for weight in encoder.weights.values() if weight.is_floating_point())
    student.backbone.to(dtype).load_state_dict(encoder.weights)
    student.processor = encoder.processor
    student.eval()
    _check_reading(student)
    if encoder.alike:
        _start_alike(student)
    return student


def student_config(
    text_config: PreTrainedConfig, poolings: list[str], alike: bool, shape: StudentArguments
) -> RabtrieverConfig:
    """The configuration of a student on an encoder.

    Args:
        text_config: the encoder's.
        poolings: how its states become one vector.
        alike: whether it is a retriever, with whose own ranking the student starts.
        shape: form and width of the predictor.

    Raises:
        ValueError: the predictor's form or width does not fit the encoder.
    """
    size: int = text_config.hidden_size
    settings = shape.shape(size, poolings)
    if alike:
        if shape.predictor_type != "hadamard" or shape.embedding_dim not in (None, size):
            raise ValueError(
                f"predictor_type is {shape.predictor_type!r}, embedding_dim {shape.embedding_dim}; accepted for a "
                f"start from a retriever: hadamard and {size}"
            )
        settings |= {"embedding_dim": size, "query_hidden_size": 2 * size}
    return RabtrieverConfig(text_config=text_config.to_dict(), **settings)


@torch.no_grad()
def _start_alike(student: TrainingStudent) -> None:
    """Sets the predictor so that a student ranks, before it is trained, as the inner product of its features does.

    The MLP has a positive and a negative unit for every feature; each of the predicted state's `k` parts moves the
    log-odds alike. Noise of a tenth lets them part.
    """
    student.whitens = False
    predictor: Any = student.predictor
    eye = torch.eye(student.config.feature_size)
    predictor.query_hidden.weight.copy_(torch.cat([eye, -eye]))
    predictor.query_output.weight.copy_(torch.cat([eye, -eye], dim=1))
    predictor.document_map.weight.copy_(eye)
    unit = predictor.direction / predictor.direction.square().sum()
    predictor.output_map.weight.mul_(0.1).add_(unit[:, None])


def train_encoder(student: TrainingStudent, how: str) -> None:
    """Lets the encoder train: `"full"`, `"lora"` with adapters of `LORA_RANK` in all linear layers, or `"none"`.

    Weights that train are fp32, whatever the teacher's are: half precision rounds small steps away.

    Raises:
        ValueError: the encoder has no layers that adapters fit.
    """
    if how == "none":
        return
    student.backbone.float()
    if how == "full":
        student.backbone.requires_grad_(True)
        return
    settings = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear")
    kind = student.config.text_config.model_type
    with refusing(f"train_encoder is 'lora', which does not fit this encoder, {kind}", "full or none"):
        student.backbone = get_peft_model(student.backbone, settings).base_model.model


def parameter_groups(
    student: torch.nn.Module, decayed: Iterable[str], weight_decay: float, encoder_rate: float
) -> list[dict[str, Any]]:
    """What an optimizer trains of a student: encoder and predictor apart, and of each what decays and what does not.

    Args:
        student: whose weights with a gradient are meant.
        decayed: names of weights that decay.
        weight_decay: theirs.
        encoder_rate: the encoder's learning rate; the predictor's is the optimizer's own.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    names = {*decayed}
    for name, weight in student.named_parameters():
        if weight.requires_grad:
            of_encoder, decays = name.startswith("backbone."), name in names
            rate = {"lr": encoder_rate} if of_encoder else {}
            empty = {"params": [], "weight_decay": weight_decay if decays else 0.0, **rate}
            groups.setdefault((of_encoder, decays), empty)["params"].append(weight)
    return list(groups.values())


@torch.no_grad()
def finish_encoder(student: TrainingStudent, how: str) -> None:
    """The end of `train_encoder`: adapters become part of the weights, and all is frozen again."""
    if how == "lora":
        for name, layer in list(student.backbone.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                parent, _, own = name.rpartition(".")
                setattr(student.backbone.get_submodule(parent), own, layer.get_base_layer())
    student.backbone.requires_grad_(False)


@torch.no_grad()
def _check_reading(student: TrainingStudent) -> None:
    """Raises a ValueError if texts cannot be read, or are read otherwise beside a longer one."""
    kind = student.config.text_config.model_type
    with refusing(f"encoder {kind} cannot be read with these settings", "another text model, or other features of it"):
        for side in ("query", "document"):
            together = read_features(student, side, _TRIALS)
            alone = torch.cat([read_features(student, side, [text]) for text in _TRIALS])
            spread = 1e-3 if student.backbone.dtype == torch.float32 else 0.1
            allowed = spread * max(float(alone.abs().max()), 1.0)
            if not (furthest := float((together - alone).abs().max())) <= allowed:
                raise ValueError(
                    f"encoder {kind} reads a text otherwise beside a longer one, by {furthest:.3g}; accepted: text "
                    f"models whose padding is masked, with finite weights (at most {allowed:.1g})"
                )
