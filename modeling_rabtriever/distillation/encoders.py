"""What a student starts from: the teacher's backbone, its first layers, or any other text encoder."""

import copy
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from .. import GenerativeRerankerModel, RabtrieverConfig, RabtrieverProcessor
from ..errors import refusing
from ..modeling_checks import check_loaded, check_source
from .encoder_folders import check_text_encoder, lowercasing, read_settings, special_tokens
from .features import read_features
from .student import TrainingStudent
from .student_arguments import StudentArguments

_TRIALS = ("a", "Which one of them, and why? " * 8)  # read separately and in one batch


class Encoder(NamedTuple):
    """A text model with everything that determines its vector of a text.

    Args:
        config: of the model.
        weights: state dict, without a language-model head.
        processor: how it reads queries and documents.
        poolings: how its states become one vector.
        is_retriever: whether it already ranks documents for a query, before any training here.
        unit_vectors: whether its vectors have length 1.
    """

    config: PreTrainedConfig
    weights: dict[str, torch.Tensor]
    processor: RabtrieverProcessor
    poolings: list[str]
    is_retriever: bool = False
    unit_vectors: bool = False


def backbone_poolings(train_encoder: str) -> list[str]:
    """How the states of the teacher's backbone become one vector; any other encoder has its own pooling.

    A frozen backbone adds the mean over tokens, because its last token's state was trained to answer, not to summarise.
    """
    return ["last", "mean"] if train_encoder == "none" else ["last"]


def teachers_encoder(
    teacher: GenerativeRerankerModel, layers: int | None = None, train_encoder: str = "none"
) -> Encoder:
    """The teacher's own backbone and prompt, or its first `layers` layers.

    Raises:
        ValueError: the backbone has fewer layers.
    """
    config = first_layers(teacher.config.text_config, layers)
    weights = teacher.backbone.base_model.state_dict()
    if layers is not None:
        accepted = "null, because this model family cannot be built with fewer layers"
        with refusing(f"encoder is {layers} layers", accepted), torch.device("meta"):
            kept = AutoModel.from_config(config).state_dict().keys()
        weights = {name: weight for name, weight in weights.items() if name in kept}
    return Encoder(config, weights, teacher.processor, backbone_poolings(train_encoder))


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


def other_encoder(source: str, lengths: RabtrieverProcessor, trust_remote_code: bool = False) -> Encoder:
    """An encoder of the Hub or from a folder, with its own tokenizer, prompts and pooling.

    A sentence-transformers folder brings its pooling and its prompts; any other model is pooled by the mean over its
    tokens. After a normalisation of the pooled vector, the student's vectors have length 1 too; other layers after the
    pooling are refused, because the predictor takes their place.

    Args:
        source: Hub id or folder.
        lengths: the teacher's processor; its limits in tokens apply as far as the encoder's window allows.
        trust_remote_code: whether code from the repository may run.

    Raises:
        ValueError: the model cannot be loaded, lacks weights or cannot be a student's encoder, its pooling is not
            supported, or its tokenizer reads texts in a way that a prompt cannot reproduce.
    """
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    accepted = "a Hub id or a folder of a text model that AutoModel loads"
    with refusing(f"encoder {source} cannot be loaded", accepted):
        stored = check_source(source, {})
        config = AutoConfig.from_pretrained(source, **hub)
        check_text_encoder(source, config)
        settings = read_settings(source)
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        report = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loaded raises the errors
        loaded: Any = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **report, **hub)
    model, info = loaded
    unread = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    check_loaded(f"encoder {source}", model, {**info, "missing_keys": unread}, stored, complete=False)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    if settings.lowercase:
        tokenizer = lowercasing(tokenizer)
    before, after = special_tokens(tokenizer)
    # The processor itself starts every document with the BOS token.
    before_document = before.removeprefix(tokenizer.bos_token) if tokenizer.bos_token else before
    processor = RabtrieverProcessor(
        tokenizer,
        true_answer=None,
        false_answer=None,
        document_template=before_document + settings.document_prompt + "{document}" + after,
        query_template=before + settings.query_prompt + "{query}" + after,
        max_document_length=lengths.max_document_length,
        max_query_length=lengths.max_query_length,
        query_truncation_side=lengths.query_truncation_side,
    )
    window = RabtrieverConfig(text_config=config).window
    if window is not None:
        document_prompt = processor.max_prefix_length - lengths.max_document_length  # in tokens
        query_prompt = processor.max_suffix_length - lengths.max_query_length
        longest = max(document_prompt, query_prompt)
        if window <= longest:
            raise ValueError(
                f"encoder {source} has a window of {window} tokens; accepted: more than the {longest} that its own "
                "prompt takes"
            )
        processor = processor.replace(
            max_document_length=min(lengths.max_document_length, window - document_prompt),
            max_query_length=min(lengths.max_query_length, window - query_prompt),
        )
    query_read = processor.query_ids("a") == [tokenizer(f"{settings.query_prompt}a")["input_ids"]]
    document_read = processor.document_ids("a") == [tokenizer(f"{settings.document_prompt}a")["input_ids"]]
    if not (query_read and document_read):
        raise ValueError(
            f"encoder {source}: its tokenizer puts {before!r} and {after!r} around a text, which cannot be written as "
            "a prompt; accepted: a tokenizer that lists these as special tokens"
        )
    known_ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values()
    highest = max(*known_ids, *processor.query_ids("a")[0], tokenizer.pad_token_id or 0)
    if highest >= config.vocab_size:
        raise ValueError(
            f"encoder {source}: its tokenizer has the id {highest}; accepted: ids below {config.vocab_size}, the "
            "number of its embeddings"
        )
    how = settings.is_retriever, settings.unit_vectors
    return Encoder(config, weights, processor, [settings.pooling], *how)


def student_of(encoder: Encoder, direction: torch.Tensor, shape: StudentArguments) -> TrainingStudent:
    """A student with a fresh predictor on an encoder of its own.

    Args:
        encoder: what the student starts from; its weights are copied. If it is a retriever, the student starts with
            the encoder's own ranking.
        direction: `(d,)`, the difference of the teacher's answer rows.
        shape: form and width of the predictor.

    Raises:
        ValueError: a setting is out of range, or the encoder cannot run with it, or its features of a text change when
            the batch has longer texts.
    """
    config = student_config(encoder.config, encoder.poolings, shape, encoder.is_retriever, encoder.unit_vectors)
    student = TrainingStudent(config, direction)
    dtype = next(weight.dtype for weight in encoder.weights.values() if weight.is_floating_point())
    student.backbone.to(dtype).load_state_dict(encoder.weights)
    student.processor = encoder.processor
    student.eval()
    _check_reading(student)
    if encoder.is_retriever:
        _start_as_retriever(student)
    return student


def student_config(
    text_config: PreTrainedConfig,
    poolings: list[str],
    shape: StudentArguments,
    is_retriever: bool = False,
    unit_vectors: bool = False,
) -> RabtrieverConfig:
    """The configuration of a student on an encoder.

    Args:
        text_config: the encoder's.
        poolings: how its states become one vector.
        shape: form and width of the predictor.
        is_retriever: whether the student starts with the encoder's own ranking.
        unit_vectors: whether that ranking is by cosine.

    Raises:
        ValueError: the predictor's form or width does not fit the encoder.
    """
    size: int = text_config.hidden_size
    settings = shape.shape(size, poolings)
    if is_retriever:
        if shape.predictor_type != "hadamard" or shape.embedding_dim not in (None, size):
            raise ValueError(
                f"predictor_type is {shape.predictor_type!r}, embedding_dim is {shape.embedding_dim}; accepted with an "
                f"encoder that is a retriever: hadamard and {size}"
            )
        settings |= {"embedding_dim": size, "query_hidden_size": 2 * size, "unit_vectors": unit_vectors}
    return RabtrieverConfig(text_config=text_config.to_dict(), **settings)


@torch.no_grad()
def _start_as_retriever(student: TrainingStudent) -> None:
    """Sets the predictor so that the untrained student ranks by the inner product of its features, or their cosine.

    The MLP has a positive and a negative unit for every feature. If there is a predicted state, each of its `k` parts
    has the same effect on the log-odds; noise of a tenth lets them diverge in training.
    """
    student.whitens = False
    predictor: Any = student.predictor
    eye = torch.eye(student.config.feature_size)
    predictor.query_hidden.weight.copy_(torch.cat([eye, -eye]))
    predictor.query_output.weight.copy_(torch.cat([eye, -eye], dim=1))
    predictor.document_map.weight.copy_(eye)
    for name in ("query_hidden", "query_output", "document_map"):
        getattr(predictor, name).bias.zero_()
    if not student.config.unit_vectors:
        unit = predictor.direction / predictor.direction.square().sum()
        predictor.output_map.weight.mul_(0.1).add_(unit[:, None])


@torch.no_grad()
def _check_reading(student: TrainingStudent) -> None:
    """Raises a ValueError if the encoder cannot run, or if longer texts in a batch change its features of a text."""
    kind = student.config.text_config.model_type
    with refusing(f"encoder {kind} cannot run with these settings", "another text model or other poolings"):
        for side in ("query", "document"):
            together = read_features(student, side, _TRIALS)
            alone = torch.cat([read_features(student, side, [text]) for text in _TRIALS])
            spread = 1e-3 if student.backbone.dtype == torch.float32 else 0.1
            allowed = spread * max(float(alone.abs().max()), 1.0)
            difference = float((together - alone).abs().max())
            if not difference <= allowed:  # also refuses NaN
                raise ValueError(
                    f"encoder {kind}: features of a text change by {difference:.3g} when the batch has a longer text; "
                    f"accepted: at most {allowed:.1g}, from text models that mask padding and have finite weights"
                )
