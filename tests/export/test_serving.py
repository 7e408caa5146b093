"""What an export says about the engines. `make serving` runs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.export import (
    cross_encoder_engines,
    engines_text,
    export_cross_encoder,
    export_sentence_transformers,
    graph_engines,
    tower_engines,
)
from modeling_rabtriever.export.serving import Engine
from tests.modeling.students import student_with

TEI = "Text Embeddings Inference (not run, by the rules of its loader)"
LAST = {"embedding_dim": 8, "feature_poolings": ["last"]}


def by_name(engines: list[Engine]) -> dict[str, Engine]:
    return {engine.name: engine for engine in engines}


def test_a_tower_that_pools_one_way(make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    folder = export_sentence_transformers(student_with(make_reranker("llama"), **LAST), tmp_path / "my towers")
    queries, documents = by_name(tower_engines(folder / "query")), by_name(tower_engines(folder / "document"))
    assert queries["vLLM"].command == f"vllm serve '{folder}/query' --runner pooling --dtype float32"
    assert queries["vLLM"].refused == documents["vLLM"].refused == ()
    longest = json.loads((folder / "query" / "tokenizer_config.json").read_text())["model_max_length"]
    assert (
        f'more than {longest} tokens, prompt included, is an error unless the request says "truncate_prompt_'
        in (queries["vLLM"].limits[0])
    )
    assert "length 1: each query's order stays" in queries["Infinity"].limits[0] and not queries["Infinity"].refused
    assert documents["Infinity"].refused == ("gives every vector length 1, which changes the order of documents",)
    assert "2 dense layers in a row" in queries[TEI].refused[0]
    assert "--pooling last-token" in documents[TEI].command and not documents[TEI].refused
    types = {module["type"] for module in json.loads((folder / "query" / "modules.json").read_text())}
    assert types == {f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense")}


def test_vectors_of_length_1_suit_every_engine(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    student = student_with(make_reranker("llama"), **LAST, unit_vectors=True)
    folder = export_sentence_transformers(student, tmp_path / "towers")
    for side in ("query", "document"):
        engines = by_name(tower_engines(folder / side))
        assert not engines["Infinity"].refused and not engines["Infinity"].limits
        assert not engines["vLLM"].refused


def test_what_an_engine_cannot_do_is_said(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    reranker = make_reranker("qwen2")
    reranker.processor = RabtrieverProcessor(
        reranker.processor.tokenizer,
        instruction="Relevant:",
        max_query_length=8,
        max_document_length=16,
        query_truncation_side="left",
    )
    folder = export_sentence_transformers(student_with(reranker, embedding_dim=24), tmp_path / "towers")
    engines = by_name(tower_engines(folder / "query"))
    assert "pools 2 ways" in engines["vLLM"].refused[0]
    assert "Over-long texts lose their end; the model cuts their beginning." in engines["vLLM"].limits
    assert any("projections have biases" in reason for reason in engines[TEI].refused)
    assert not engines["sentence-transformers"].refused
    said = engines_text("query tower", tower_engines(folder / "query"))
    assert said.startswith("query tower\n  sentence-transformers:\n    from sentence_transformers import Sent")
    assert "  vLLM: no command for this folder\n    pools 2 ways" in said and "vllm serve" not in said
    modules = json.loads((folder / "query" / "modules.json").read_text())
    modules[1]["type"] = "my.Pooling"
    (folder / "query" / "modules.json").write_text(json.dumps(modules))
    assert "silently skips: my.Pooling" in by_name(tower_engines(folder / "query"))["vLLM"].refused[-1]


def test_a_cross_encoder(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = export_cross_encoder(reranker, tmp_path / "model")
    engines = by_name(cross_encoder_engines(folder))
    assert engines["vLLM"].command == f"vllm serve {folder} --runner pooling --dtype float32"
    assert json.loads((folder / "config.json").read_text())["use_sep_token"] is True  # else vLLM joins the texts


def test_other_folders_are_refused(make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    folder = export_sentence_transformers(student_with(make_reranker("llama"), **LAST), tmp_path / "towers")
    with pytest.raises(ValueError, match=r"towers has no model.safetensors; accepted: the folder query or document"):
        tower_engines(folder)
    with pytest.raises(ValueError, match=r"query has no model.onnx; accepted: .* of an export to onnx"):
        graph_engines(folder / "query")
    with pytest.raises(ValueError, match="query is not a cross-encoder; accepted"):
        cross_encoder_engines(folder / "query")
