"""The student as stock modules of sentence-transformers: a query tower, a document tower, and both in one folder."""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from torch import Tensor

from ..errors import refusing
from ..files import write_folder, write_json, write_tensors, write_text
from ..modeling_rabtriever import RabtrieverModel
from .prompt_tokenizer import SIDES, padding_id, save_tower_tokenizer
from .stock_backbone import IDENTITY, check_backbone, stock_backbone, write_backbone

TOLERANCE = 1e-4  # of scores, relative to the largest one
COMBINED = "combined"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")  # the files that decide how a tower reads texts
# sentence-transformers always concatenates poolings in this order.
_POOLING_KEYS = {
    "first": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"
}  # fmt: skip
# The module names before version 5.4: until 2026-08-31 vLLM silently skipped modules with the newer names, and
# sentence-transformers reads both.
_MODULES = "sentence_transformers.models"
_RELU = "torch.nn.modules.activation.ReLU"


class DenseLayer(NamedTuple):
    """`x -> weight x + bias`, followed by a ReLU if `relu` is true."""

    weight: Tensor
    bias: Tensor
    relu: bool = False


def export_sentence_transformers(student: RabtrieverModel, folder: str | Path, axes: Tensor | None = None) -> Path:
    """Writes `query`, `document` and `combined`, loaded by `SentenceTransformer(...)` without `trust_remote_code`.

    `combined` is a router: its `encode_query` and `encode_document` are the two towers. Vectors are the student's and
    `similarity` is the dot product, so scores equal the student's. This is checked before the folder appears, to
    `TOLERANCE` times the largest score. The prompt is in each tower's tokenizer and cannot be forgotten. The towers are
    fp32.

    Args:
        student: with its processor.
        folder: new or empty; it appears when everything is written and checked.
        axes: `(k, dim)` orthonormal columns, as a store's `axes` or from `principal_axes`: vectors are then the
            student's times these axes. They are part of the last linear layer, or a layer after the normalization of
            `unit_vectors`.

    Raises:
        ValueError: the student's weights are quantised, the folder is not empty, no stock tokenizer gives the
            processor's ids (`save_tower_tokenizer`), the axes are not for vectors of this width, or the scores differ.

    Examples:
        >>> from sentence_transformers import SentenceTransformer
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.export import export_sentence_transformers
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> towers = export_sentence_transformers(student, "runs/towers")
        >>> both = SentenceTransformer(str(towers / "combined"))
        >>> both.similarity(both.encode_query(["It is dark"]), both.encode_document(["bring the lantern"])).shape
        torch.Size([1, 1])
    """
    check_backbone(student)
    check_axes(student, axes)

    def write(new: Path) -> None:
        samples = {side: write_tower(student, side, new / side, axes) for side in SIDES}
        towers: dict[str, Any] = {side: SentenceTransformer(str(new / side), device="cpu") for side in SIDES}
        router = Router.for_query_document(list(towers["query"]), list(towers["document"]))
        combined = SentenceTransformer(modules=[router], similarity_fn_name="dot", device="cpu")
        combined.save_pretrained(str(new / COMBINED), create_model_card=False)
        for side in SIDES:  # the original files: saving a tokenizer again brings its special tokens back
            (place,) = (new / COMBINED).glob(f"{side}_0_*")
            for name in FILES:
                shutil.copy(new / side / name, place / name)
        check_scores(student, new, samples, axes)

    with refusing(
        "this student cannot be exported", "a student as save_pretrained writes it, and a folder to write to"
    ):
        return write_folder(Path(folder), write)


def check_axes(student: RabtrieverModel, axes: Tensor | None) -> None:
    """Raises a ValueError if these axes, `(k, dim)`, are not for the student's vectors; `None` are none."""
    k = student.config.embedding_dim
    if axes is not None and (axes.dim() != 2 or len(axes) != k or not 1 <= axes.shape[1] <= k):
        raise ValueError(f"axes have shape {tuple(axes.shape)}; accepted: ({k}, dim) with dim from 1 to {k}")


def write_tower(student: RabtrieverModel, side: str, folder: Path, axes: Tensor | None = None) -> list[str]:
    """Writes one tower as a sentence-transformers folder: backbone, tokenizer with the prompt, pooling, dense layers.

    With `axes`, its vectors are the coordinates along them, as in `export_sentence_transformers`.

    Returns:
        Texts for a comparison of vectors, one of each kind that is hard to tokenize.
    """
    config, weights = stock_backbone(student)
    config.pad_token_id = padding_id(student.processor, config.vocab_size)
    write_backbone(config, weights, folder)
    trials = save_tower_tokenizer(student.processor, side, config.pad_token_id, folder)
    steps: list[DenseLayer | None] = [*dense_layers(student, side)]  # None is the normalization
    if student.config.unit_vectors:
        steps.append(None)
    if axes is not None:
        last = steps.pop() if steps and steps[-1] is not None else None
        steps.append(_along(axes.detach().float().cpu().T.contiguous(), last))
    kinds = ["Transformer", "Pooling", *("Normalize" if layer is None else "Dense" for layer in steps)]
    places = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], start=1))]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}.{kind}"}
        for number, (path, kind) in enumerate(zip(places, kinds, strict=True))
    ]
    write_text(folder / "modules.json", json.dumps(modules, indent=2) + "\n")
    length = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    settings = {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "dot"}
    write_json(folder / "config_sentence_transformers.json", settings)
    pooling = {key: name in student.config.feature_poolings for name, key in _POOLING_KEYS.items()}
    others = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
    pooling |= {f"pooling_mode_{name}": False for name in others}
    width = {"word_embedding_dimension": student.config.hidden_size, "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", width | pooling)
    for path, layer in zip(places[2:], steps, strict=True):
        if layer is None:
            continue
        place = folder / path
        out_features, in_features = layer.weight.shape
        shape = {"in_features": in_features, "out_features": out_features, "bias": True}
        activation = _RELU if layer.relu else IDENTITY
        write_json(place / "config.json", shape | {"activation_function": activation})
        write_tensors(place / "model.safetensors", {"linear.weight": layer.weight, "linear.bias": layer.bias})
    return trials.sample


@torch.no_grad()
def _along(axes: Tensor, layer: DenseLayer | None) -> DenseLayer:
    """The layer that gives coordinates along `axes`, `(dim, k)`: of what `layer` gives, or of its input if `None`."""
    if layer is None:
        return DenseLayer(axes, torch.zeros(len(axes)))
    return DenseLayer(axes @ layer.weight, axes @ layer.bias)


@torch.no_grad()
def dense_layers(student: RabtrieverModel, side: str) -> list[DenseLayer]:
    """One side of the predictor as plain layers over pooled states in sentence-transformers' order; fp32, on the CPU.

    Without a document map, the document's vector is the features themselves. Its tower then has no layer, or one that
    puts the features into the student's order.
    """
    config: Any = student.config
    predictor: Any = copy.deepcopy(student.predictor).cpu()
    if side == "document":
        if not config.document_map:
            order = _reordered(torch.eye(config.feature_size), config)
            return [] if order.equal(torch.eye(len(order))) else [DenseLayer(order, torch.zeros(len(order)))]
        return [DenseLayer(_reordered(predictor.document_map.weight, config), predictor.document_map.bias)]
    hidden, output = predictor.query_hidden, predictor.query_output
    return [
        DenseLayer(_reordered(hidden.weight, config), hidden.bias, relu=True),
        DenseLayer(output.weight, output.bias),
    ]


def _reordered(weight: Tensor, config: Any) -> Tensor:
    """Reorders columns from the configuration's order of poolings to that of sentence-transformers."""
    ours: Sequence[str] = config.feature_poolings
    blocks = dict(zip(ours, weight.split(config.hidden_size, dim=1), strict=True))
    return torch.cat([blocks[name] for name in _POOLING_KEYS if name in blocks], dim=1)


def full_precision(model: Any) -> Any:
    """A teacher or student in fp32: the model itself, or a copy as if loaded (a cast would also round buffers)."""
    if model.backbone.dtype == torch.float32:
        return model
    copied: Any = type(model)._from_config(model.config, dtype=torch.float32)
    copied.load_state_dict(model.state_dict())
    copied.processor = model.processor
    return copied.eval()


def along(vectors: Tensor, axes: Tensor | None) -> Tensor:
    """Coordinates of vectors `(n, k)` along `axes` `(k, dim)`: `(n, dim)`; the vectors themselves without axes."""
    return vectors if axes is None else vectors @ axes.to(vectors)


def check_close(what: str, found: Tensor, expected: Tensor) -> None:
    """Raises a ValueError if an export's numbers differ from the model's by more than `TOLERANCE`, or are NaN."""
    error = (found - expected).abs().max() / expected.abs().max()
    if not error <= TOLERANCE:
        raise ValueError(f"{what} differ from the model's by {error:.1e} of the largest; accepted: {TOLERANCE}")


@torch.no_grad()
def check_scores(
    student: RabtrieverModel, folder: Path, samples: Mapping[str, list[str]], axes: Tensor | None = None
) -> None:
    """Raises a ValueError if scores of the towers or of the combined model differ from the student's.

    Args:
        student: that was exported.
        folder: with the three folders of an export.
        samples: side -> texts.
        axes: along which the towers' vectors are the student's.
    """
    exact = full_precision(student)
    queries, documents = samples["query"], samples["document"]
    vectors = [along(exact.encode_query(queries), axes), along(exact.encode_document(documents), axes)]
    expected = exact.similarity(*vectors).cpu()
    combined = SentenceTransformer(str(folder / COMBINED), device="cpu")
    towers = [SentenceTransformer(str(folder / side), device="cpu") for side in SIDES]
    options: dict[str, Any] = {"convert_to_tensor": True, "show_progress_bar": False, "batch_size": 8}
    found = [tower.encode(texts, **options) for tower, texts in zip(towers, (queries, documents), strict=True)]
    for side, own, vector in zip(SIDES, found, vectors, strict=True):
        check_close(f"vectors of the {side} tower", own, vector.cpu())
    check_close("scores of the two towers", found[0] @ found[1].T, expected)
    routed = combined.encode_query(queries, **options), combined.encode_document(documents, **options)
    check_close(f"scores of {COMBINED}", combined.similarity(*routed), expected)
