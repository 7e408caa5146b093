"""What a student starts from: the teacher's backbone, its first layers, or any other text encoder."""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from .. import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel, RabtrieverProcessor
from ..errors import refusing
from ..modeling_checks import check_loaded, check_source
from .encoder_folders import check_text_encoder, in_small_letters, retriever, special_tokens

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
        with refusing(f"encoder_layers is {layers}", accepted), torch.device("meta"):
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
        raise ValueError(f"encoder_layers is {layers}; accepted: 1 to {depth}, the layers of the teacher's backbone")
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


def student_of(encoder: Encoder, teacher: GenerativeRerankerModel | None, **predictor: Any) -> RabtrieverModel:
    """A student with a fresh predictor on an encoder of its own.

    Args:
        encoder: what it starts from; its weights are copied.
        teacher: whose answer rows and width it predicts; without one its predictor has one direction of its own.
        predictor: settings of `RabtrieverConfig`.

    Raises:
        ValueError: a setting is out of range, or the encoder cannot be read with it, or reads a text otherwise among
            longer ones.
    """
    own = encoder.processor
    answers = {"true_token_id": own.true_token_id, "false_token_id": own.false_token_id}
    width = {"answer_size": teacher.config.hidden_size} if teacher is not None else {}
    settings = {"feature_poolings": encoder.poolings, **answers, **width, **predictor}
    student = RabtrieverModel(RabtrieverConfig(text_config=encoder.config.to_dict(), **settings))
    dtype = next(weight.dtype for weight in encoder.weights.values() if weight.is_floating_point())
    student.backbone.to(dtype).load_state_dict(encoder.weights)
    rows = teacher.answer_rows if teacher is not None else _unit_rows(student.config.answer_size)
    student.answer_head.weight.data.copy_(rows)
    student.processor = own
    student.eval()
    _check_reading(student)
    return student


@torch.no_grad()
def start_alike(student: RabtrieverModel) -> None:
    """Sets the predictor so that a student ranks, before it is trained, as the inner product of its features does.

    The MLP has a positive and a negative unit for every feature; each of the predicted state's `k` parts moves the
    log-odds alike. Noise of a tenth lets them part.

    Raises:
        ValueError: widths do not allow it.
    """
    predictor, config = student.predictor, student.config
    check_start(config)
    size = config.state_size
    eye = torch.eye(size)
    predictor.query_hidden.weight.copy_(torch.cat([eye, -eye]))
    predictor.query_output.weight.copy_(torch.cat([eye, -eye], dim=1).unsqueeze(-1))
    predictor.document_map.weight.copy_(eye)
    unit = student.answer_direction / student.answer_direction.square().sum()
    predictor.output_map.weight.mul_(0.1).add_(unit[:, None])


def start_settings(settings: dict[str, Any], size: int) -> dict[str, Any]:
    """Settings of a predictor with what `start_alike` needs where nothing was asked for; `size` is the encoder's."""
    needed = {"embedding_dim": size, "predictor_hidden_size": 2 * size}
    return {**settings, **{name: settings.get(name) or value for name, value in needed.items()}}


def check_start(config: RabtrieverConfig) -> None:
    """Raises a ValueError if `start_alike` cannot set a predictor of this shape."""
    size = config.state_size
    required = {
        "predictor_type": "hadamard", "shared_dim": 0, "document_prior": False, "query_anchors": [],
        "document_anchors": [], "num_heads": 1, "embedding_dim": size, "predictor_hidden_size": 2 * size,
    }  # fmt: skip
    for name, value in required.items():
        if (given := getattr(config, name)) != value:
            given, value = (len(one) if isinstance(one, list) else one for one in (given, value))  # anchors
            raise ValueError(f"{name} is {given!r}; accepted for a start from a retriever: {value!r}")


def train_encoder(student: RabtrieverModel, how: str, rank: int) -> None:
    """Lets the encoder train: `"full"`, `"lora"` with adapters of `rank` in all linear layers, or `"none"`.

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
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
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
def finish_encoder(student: RabtrieverModel, how: str) -> None:
    """The end of `train_encoder`: adapters become part of the weights, and all is frozen again."""
    if how == "lora":
        for name, layer in list(student.backbone.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                parent, _, own = name.rpartition(".")
                setattr(student.backbone.get_submodule(parent), own, layer.get_base_layer())
    student.backbone.requires_grad_(False)


def _unit_rows(size: int) -> torch.Tensor:
    rows = torch.zeros(2, size)
    rows[0] = size**-0.5
    return rows


@torch.no_grad()
def _check_reading(student: RabtrieverModel) -> None:
    """Raises a ValueError if texts cannot be read, or are read otherwise beside a longer one."""
    kind = student.config.text_config.model_type
    with refusing(f"encoder {kind} cannot be read with these settings", "another text model, or other features of it"):
        for read in (student.query_features, student.document_features):
            together = read(list(_TRIALS))
            alone = torch.cat([read([text]) for text in _TRIALS])
            spread = 1e-3 if student.backbone.dtype == torch.float32 else 0.1
            allowed = spread * max(float(alone.abs().max()), 1.0)
            if not (furthest := float((together - alone).abs().max())) <= allowed:
                raise ValueError(
                    f"encoder {kind} reads a text otherwise beside a longer one, by {furthest:.3g}; accepted: text "
                    f"models whose padding is masked, with finite weights (at most {allowed:.1g})"
                )
