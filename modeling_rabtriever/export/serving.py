"""How each engine serves an exported folder with the model's numbers, and where it cannot.

`make serving` runs these commands with the engines named here, except Text Embeddings Inference, whose loader was read.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Module types that vLLM's loader of sentence-transformers folders knows in every version.
_VLLM_MODULES = {f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")}
# Backbones that Text Embeddings Inference implements itself, by model_type.
_TEI_BACKBONES = {"qwen2", "qwen3", "gemma3_text", "mistral", "llama", "bert", "distilbert", "mpnet", "roberta"}
_TEI_POOLINGS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last-token"}


class Engine(NamedTuple):
    """One engine and one folder."""

    name: str
    command: str  # of a shell, or lines of Python that make `vectors` of `texts`
    limits: tuple[str, ...] = ()  # where its numbers differ from the model's, or a request needs more than the text
    refused: tuple[str, ...] = ()  # why there is no command for this folder with the model's numbers

    def text(self) -> str:
        """The lines that `rabtriever export` prints."""
        heading = f"{self.name}: no command for this folder" if self.refused else f"{self.name}:"
        lines = self.refused or (*self.command.splitlines(), *self.limits)
        return "\n".join([heading, *(f"  {line}" for line in lines)])


def tower_engines(tower: str | Path) -> list[Engine]:
    """The engines for a folder of plain modules, each with its command and its limits.

    Args:
        tower: the folder `query` or `document` that `export_sentence_transformers` wrote.

    Raises:
        ValueError: the folder is not a tower.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.export import export_sentence_transformers, tower_engines
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> towers = export_sentence_transformers(student, "towers")
        >>> [engine.name for engine in tower_engines(towers / "query") if not engine.refused]
        ['sentence-transformers', 'Infinity']
    """
    tower = _folder(tower, "model.safetensors", "the folder query or document of an export to sentence-transformers")
    facts = _facts(tower)
    stock = Engine(
        "sentence-transformers", _python("SentenceTransformer", repr(str(tower)), "vectors", "encode(texts)")
    )
    return [stock, _vllm(tower, facts), _infinity(tower, facts), _tei(tower, facts)]


def graph_engines(tower: str | Path) -> list[Engine]:
    """The engines for a folder with a graph, each with its lines of Python.

    Args:
        tower: the folder `query` or `document` that `export_onnx` wrote.

    Raises:
        ValueError: the folder has no graph.
    """
    tower = _folder(tower, "model.onnx", "the folder query or document of an export to onnx")
    graph, tokenizer = str(tower / "model.onnx"), str(tower / "tokenizer.json")
    fastembed = f"""\
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model(
    {str(tower)!r}, pooling=PoolingType.DISABLED, normalization=False, sources=ModelSource(hf="local"),
    dim={_facts(tower)["dimensions"]}, model_file="model.onnx",
)
vectors = list(TextEmbedding({str(tower)!r}, specific_model_path={str(tower)!r}).embed(texts))"""
    openvino = f"""\
import openvino, tokenizers
graph = openvino.Core().compile_model({graph!r}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
rows = tokenizers.Tokenizer.from_file({tokenizer!r}).encode_batch(texts)
inputs = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}}
vectors = graph(inputs)["sentence_embedding"]"""
    stock = _python("SentenceTransformer", f'{str(tower)!r}, backend="onnx"', "vectors", "encode(texts)")
    return [
        Engine("fastembed", fastembed),
        Engine("OpenVINO", openvino),
        Engine("sentence-transformers with optimum-onnx", stock, ("optimum-onnx needs transformers 4.",)),
    ]


def cross_encoder_engines(folder: str | Path) -> list[Engine]:
    """The engines for an exported cross-encoder, each with its command.

    Args:
        folder: that `export_cross_encoder` wrote.

    Raises:
        ValueError: the folder is not a cross-encoder.
    """
    folder = _folder(folder, "config.json", "the folder of an export to cross-encoder")
    config = _read(folder / "config.json")
    if not config["architectures"][0].endswith("ForSequenceClassification"):
        raise ValueError(f"{folder} is not a cross-encoder; accepted: the folder of an export to cross-encoder")
    return [
        Engine("sentence-transformers", _python("CrossEncoder", repr(str(folder)), "scores", "predict(pairs)")),
        Engine(
            "vLLM",
            f"vllm serve {shlex.quote(str(folder))} --runner pooling --dtype float32",
            (
                'Ask /score or /rerank; a request with longer texts needs "truncate_prompt_tokens": -1.',
                "Without --dtype float32 scores are rounded to half precision.",
            ),
        ),
    ]


def engines_text(title: str, engines: Sequence[Engine]) -> str:
    """A title and the lines of all engines."""
    lines = "\n".join(engine.text() for engine in engines).splitlines()
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _python(kind: str, arguments: str, made: str, call: str) -> str:
    return f"from sentence_transformers import {kind}\n{made} = {kind}({arguments}).{call}"


def _vllm(tower: Path, facts: dict[str, Any]) -> Engine:
    limits = [
        f"A text of more than {facts['longest']} tokens, prompt included, is an error unless the request says "
        '"truncate_prompt_tokens": -1.',
        "Without --dtype float32 vectors are computed in half precision.",
    ]
    if facts["cut_at"] == "left":
        limits.append("Over-long texts lose their end; the model cuts their beginning.")
    unknown = sorted(facts["types"] - _VLLM_MODULES)
    refused = [*facts["modules_refused"]]
    if unknown:
        refused.append(f"has modules that vLLM silently skips: {', '.join(unknown)}")
    command = f"vllm serve {shlex.quote(str(tower))} --runner pooling --dtype float32"
    return Engine("vLLM", command, tuple(limits), tuple(refused))


def _infinity(tower: Path, facts: dict[str, Any]) -> Engine:
    limits, refused = [], []
    if not facts["unit"] and tower.name == "query":
        limits.append("It gives query vectors length 1: each query's order stays, its scores change by one factor.")
    elif not facts["unit"]:
        refused.append("gives every vector length 1, which changes the order of documents")
    command = (
        f"infinity_emb v2 --model-id {shlex.quote(str(tower))} --engine torch --dtype float32 --no-bettertransformer"
    )
    return Engine("Infinity", command, tuple(limits), tuple(refused))


def _tei(tower: Path, facts: dict[str, Any]) -> Engine:
    refused = [*facts["modules_refused"]]
    backbone = facts["config"]["model_type"]
    if backbone not in _TEI_BACKBONES:
        refused.append(f"has a backbone that TEI does not know: {backbone}")
    if backbone == "llama" and facts["config"].get("attention_bias"):  # a Qwen2 in this form keeps its tokenizer
        refused.append("has a Llama whose projections have biases, whose support is not confirmed")
    if facts["dense"] > 1:
        refused.append(f"has {facts['dense']} dense layers in a row, whose support is not confirmed")
    pooling = _TEI_POOLINGS.get(facts["poolings"][0], facts["poolings"][0])
    command = (
        f"text-embeddings-router --model-id {shlex.quote(str(tower))} --dtype float32 --pooling {pooling} "
        "--auto-truncate"
    )
    limits = () if facts["unit"] else ('Ask /embed with "normalize": false.',)
    return Engine("Text Embeddings Inference (not run, by the rules of its loader)", command, limits, tuple(refused))


def _facts(tower: Path) -> dict[str, Any]:
    modules = _read(tower / "modules.json")
    pooling = _read(tower / "1_Pooling" / "config.json")
    prefix = "pooling_mode_"
    modes = [name.removeprefix(prefix) for name, chosen in pooling.items() if name.startswith(prefix) and chosen]
    dense = [module["path"] for module in modules if module["type"].endswith(".Dense")]
    width = pooling["word_embedding_dimension"] * len(modes)
    refused, last = [], modules[-1]["type"]
    normalized = any(module["type"].endswith(".Normalize") for module in modules)
    if normalized and not last.endswith(".Normalize"):
        refused.append("has a layer behind its normalization, whose support is not confirmed")
    if len(modes) > 1:
        refused.append(
            f"pools {len(modes)} ways and concatenates the results, but servers pool one way; a student whose encoder "
            "trains pools one way"
        )
    settings = _read(tower / "tokenizer_config.json")
    return {
        "config": _read(tower / "config.json"),
        "types": {module["type"] for module in modules},
        "poolings": modes,
        "modules_refused": refused,
        "dense": len(dense),
        "dimensions": _read(tower / dense[-1] / "config.json")["out_features"] if dense else width,
        "unit": last.endswith(".Normalize"),
        "longest": settings["model_max_length"],
        "cut_at": settings["truncation_side"],
    }


def _folder(path: str | Path, needed: str, accepted: str) -> Path:
    path = Path(path)
    if not (path / needed).is_file():
        raise ValueError(f"{path} has no {needed}; accepted: {accepted}")
    return path


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
