"""What a student starts from: the teacher's backbone, its first layers, or any other text encoder."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.errors import refusing
from modeling_rabtriever.modeling_checks import check_source, read_json

_PIECES = ("Transformer", "Pooling", "Normalize")  # of a sentence-transformers folder that a start can be made of
_POOLINGS = {"cls": "first", "mean": "mean", "lasttoken": "last"}
START_SCORE = 20.0  # the inner product of two equal directions before training, in the teacher's log-odds


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
    config = copy.deepcopy(teacher.config.text_config)
    depth = config.num_hidden_layers
    if layers is not None and not 1 <= layers <= depth:
        raise ValueError(f"encoder_layers is {layers}; accepted: 1 to {depth}, the layers of the teacher's backbone")
    weights = teacher.backbone.base_model.state_dict()
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types)[:layers]
        with torch.device("meta"):
            kept = AutoModel.from_config(config).state_dict().keys()
        weights = {name: weight for name, weight in weights.items() if name in kept}
    return Encoder(config, weights, teacher.processor, ["last", "mean"], alike=False)


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
        ValueError: the model cannot be loaded, or pools in a way that is not supported.
    """
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    check_source(source, {"revision": revision})
    accepted = "a Hub id or a folder of a text model that AutoModel loads"
    with refusing(f"encoder {source} cannot be loaded", accepted):
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        config = AutoConfig.from_pretrained(source, **hub)
        model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **hub)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    folder = Path(source)
    pooling, prompts = _pooling(folder), _prompts(folder)
    before, behind = _special_tokens(tokenizer)
    known = tokenizer.bos_token if tokenizer.bos_token and before.startswith(tokenizer.bos_token) else ""
    window = RabtrieverConfig(text_config=config).window
    processor = RabtrieverProcessor(
        tokenizer,
        true_answer=None,
        false_answer=None,
        document_template=before.removeprefix(known) + prompts[1] + "{document}" + behind,  # it adds the first itself
        query_template=before + prompts[0] + "{query}" + behind,
        max_document_length=lengths.max_document_length,
        max_query_length=lengths.max_query_length,
        query_truncation_side=lengths.query_truncation_side,
    )
    if window is not None:
        frames = processor.max_prefix_length - lengths.max_document_length
        asked = processor.max_suffix_length - lengths.max_query_length
        processor = processor.replace(
            max_document_length=min(lengths.max_document_length, window - frames),
            max_query_length=min(lengths.max_query_length, window - asked),
        )
    return Encoder(config, weights, processor, [pooling], alike=(folder / "modules.json").is_file())


def student_of(encoder: Encoder, teacher: GenerativeRerankerModel | None, **predictor: Any) -> RabtrieverModel:
    """A student with a fresh predictor on an encoder of its own.

    Args:
        encoder: what it starts from; its weights are copied.
        teacher: whose answer rows and width it predicts; without one its predictor has one direction of its own.
        predictor: settings of `RabtrieverConfig`.

    Raises:
        ValueError: a setting is out of range.
    """
    own = encoder.processor
    answers = {"true_token_id": own.true_token_id, "false_token_id": own.false_token_id}
    width = {"answer_size": teacher.config.hidden_size} if teacher is not None else {}
    settings = {"feature_poolings": encoder.poolings, **answers, **width, **predictor}
    student = RabtrieverModel(RabtrieverConfig(text_config=encoder.config.to_dict(), **settings))
    student.backbone.load_state_dict(encoder.weights)
    rows = teacher.answer_rows if teacher is not None else _unit_rows(student.config.answer_size)
    student.answer_head.weight.data.copy_(rows)
    student.processor = own
    return student.eval()


@torch.no_grad()
def start_alike(student: RabtrieverModel) -> None:
    """Sets the predictor so that a student ranks, before it is trained, as the inner product of its features does.

    The MLP has a positive and a negative unit for every feature; each of the predicted state's `k` parts moves the
    log-odds alike. Noise of a tenth lets them part.

    Raises:
        ValueError: widths do not allow it.
    """
    predictor, config = student.predictor, student.config
    size, units = config.query_state_size, config.predictor_hidden_size
    if config.predictor_type != "hadamard" or config.factors != size or config.num_heads != 1 or units != 2 * size:
        raise ValueError(
            f"embedding_dim is {config.embedding_dim}, num_heads {config.num_heads}, predictor_hidden_size {units}; "
            f"accepted for a start from a retriever: {size}, 1 and {2 * size}"
        )
    eye = torch.eye(size)
    predictor.query_hidden.weight.copy_(torch.cat([eye, -eye]))
    predictor.query_output.weight.copy_(torch.cat([eye, -eye], dim=1).unsqueeze(-1))
    predictor.document_map.weight.copy_(eye)
    unit = student.answer_direction / student.answer_direction.square().sum()
    predictor.output_map.weight.mul_(0.1).add_(unit[:, None])


def train_encoder(student: RabtrieverModel, how: str, rank: int) -> None:
    """Lets the encoder train: `"full"`, `"lora"` with adapters of `rank` in all linear layers, or `"none"`."""
    if how == "full":
        student.backbone.requires_grad_(True)
    elif how == "lora":
        settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
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


def _special_tokens(tokenizer: Any) -> tuple[str, str]:
    """What the tokenizer puts before and behind a text, as it would be written in a template."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
    before, behind = whole[:start], whole[start + len(plain) :]
    return tuple("".join(tokenizer.convert_ids_to_tokens(part)) for part in (before, behind))  # type: ignore[return-value]


def _pooling(folder: Path) -> str:
    if not (folder / "modules.json").is_file():
        return "mean"
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds) <= set(_PIECES):
        raise ValueError(f"encoder {folder} has modules {', '.join(kinds)}; accepted: Transformer, Pooling, Normalize")
    settings = read_json(folder / modules[1]["path"] / "config.json")
    mode = settings.get("pooling_mode")
    modes = (
        [mode]
        if isinstance(mode, str)
        else [
            name.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
            for name, on in settings.items()
            if name.startswith("pooling_mode_") and on is True
        ]
    )
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ValueError(f"encoder {folder} pools by {', '.join(modes)}; accepted: one of {', '.join(_POOLINGS)}")
    return _POOLINGS[modes[0]]


def _prompts(folder: Path) -> tuple[str, str]:
    path = folder / "config_sentence_transformers.json"
    prompts = (read_json(path).get("prompts") or {}) if path.is_file() else {}
    document = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    return prompts.get("query") or "", document
