"""Towers of shorter vectors: the student's along principal axes, and those of a store that was indexed with --dim."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.export import export_sentence_transformers, tower_engines
from modeling_rabtriever.retrieval import CorpusVectors, Document, encode_corpus, principal_axes
from tests.conftest import DOCUMENTS, QUERIES
from tests.modeling.students import student_with

SHAPES: dict[str, dict[str, Any]] = {
    "a map": {"embedding_dim": 24, "feature_poolings": ["last"]},
    "no map": {"document_map": False, "query_hidden_size": 32, "feature_poolings": ["last"]},
    "no map, two poolings": {"document_map": False, "feature_poolings": ["mean", "last"]},
    "unit vectors": {"embedding_dim": 24, "feature_poolings": ["mean"], "unit_vectors": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_towers_give_the_students_vectors_along_the_axes(
    make_reranker: Callable[..., GenerativeRerankerModel], shape: str, tmp_path: Path
) -> None:
    student = student_with(make_reranker("llama"), **SHAPES[shape])
    held = student.encode_document(DOCUMENTS)
    axes = principal_axes([held.numpy()], 5)
    folder = export_sentence_transformers(student, tmp_path / "towers", axes)
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    options: dict[str, Any] = {"convert_to_tensor": True}
    queries, documents = both.encode_query(QUERIES, **options), both.encode_document(DOCUMENTS, **options)
    torch.testing.assert_close(queries, student.encode_query(QUERIES) @ axes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(documents, held @ axes, atol=1e-4, rtol=1e-4)
    refused = {engine.name for engine in tower_engines(folder / "query") if engine.refused}
    assert ("vLLM" in refused) == (shape in ("unit vectors", "no map, two poolings"))
    assert "Infinity" in {engine.name for engine in tower_engines(folder / "document") if engine.refused}


@pytest.fixture
def folder(student: RabtrieverModel, reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    """A student, a teacher, encoded documents, and stores of five numbers each and of whole vectors."""
    student.save_pretrained(tmp_path / "student")
    reranker.save_pretrained(tmp_path / "teacher")
    encode_corpus(student, [Document(f"d{row}", text) for row, text in enumerate(DOCUMENTS)], tmp_path / "vectors")
    for store, own in (("short", ["--dim", "5"]), ("whole", [])):
        command = ["index", "--vectors", str(tmp_path / "vectors"), "--store", str(tmp_path / store), *own]
        assert cli.main(command) == 0
    return tmp_path


def export(folder: Path, axes: str | None, *more: str, model: str = "student") -> int:
    own = [] if axes is None else ["--axes", str(folder / axes)]
    kind = [] if "--format" in more else ["--format", "sentence-transformers"]
    return cli.main(["export", "--model", str(folder / model), "--output", str(folder / "towers"), *kind, *own, *more])


def test_a_query_towers_scores_are_those_of_the_stores_own_search(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(folder, "short", "--dim", "5") == 0
    capsys.readouterr()
    search = ["search", "--model", str(folder / "student"), "--store", str(folder / "short"), "--query", QUERIES[0]]
    assert cli.main(search) == 0
    hits = {hit["id"]: hit["score"] for hit in json.loads(capsys.readouterr().out)["hits"]}
    rows = lancedb.connect(folder / "short").open_table("documents").to_arrow().to_pylist()
    queries, documents = (SentenceTransformer(str(folder / "towers" / side)) for side in ("query", "document"))
    query = queries.encode([QUERIES[0]])[0]
    stored = {row["id"]: np.asarray(row["vector"]) for row in rows}
    assert {len(vector) for vector in stored.values()} == {5} and query.shape == (5,)
    assert hits == {id_: pytest.approx(query @ vector, abs=1e-4) for id_, vector in stored.items()}
    made = documents.encode(DOCUMENTS)
    np.testing.assert_allclose(made, [stored[f"d{row}"] for row in range(len(DOCUMENTS))], atol=1e-4)


def test_axes_of_encoded_documents(folder: Path, student: RabtrieverModel) -> None:
    assert export(folder, "vectors", "--dim", "3", "--format", "onnx") == 0
    import onnxruntime
    from transformers import AutoTokenizer

    axes = principal_axes((shard.vectors for shard in CorpusVectors(folder / "vectors")), 3)
    read = AutoTokenizer.from_pretrained(folder / "towers" / "query")(QUERIES[:1], return_tensors="np")
    graph = onnxruntime.InferenceSession(str(folder / "towers" / "query" / "model.onnx"))
    found = graph.run(None, {name: read[name] for name in ("input_ids", "attention_mask")})[0]
    np.testing.assert_allclose(found, student.encode_query(QUERIES[:1]) @ axes, atol=1e-4)


@pytest.mark.parametrize(
    ("axes", "more", "message"),
    [
        ("vectors", ["--dim", "25"], "dim is 25; accepted: a whole number from 1 to 24"),
        ("short", ["--dim", "6"], "keeps 5 numbers of each vector; accepted: 5"),
        ("whole", ["--dim", "3"], "keeps whole vectors and has no axes; accepted: a store that index --dim made"),
        ("nothing", ["--dim", "3"], "nothing holds no encoded corpus"),
        (None, ["--dim", "3"], "--dim and --axes together"),
        ("short", [], "--dim and --axes together"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, axes: str | None, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert export(folder, axes, *more) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and not (folder / "towers").exists()


def test_another_students_axes_are_refused(
    folder: Path, make_reranker: Callable[..., GenerativeRerankerModel], capsys: pytest.CaptureFixture[str]
) -> None:
    other = student_with(make_reranker("llama"), **SHAPES["a map"])
    other.save_pretrained(folder / "other")
    for axes, message in (("short", "holds vectors of the model"), ("vectors", "was encoded by the model")):
        assert export(folder, axes, "--dim", "3", model="other") == 2
        assert message in capsys.readouterr().err
    flags = ("--dim", "3", "--format", "cross-encoder")
    assert export(folder, "short", *flags, model="teacher") == 2
    assert "--format cross-encoder, which has no vectors" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"axes have shape \(3, 2\); accepted: \(24, dim\) with dim from 1 to 24"):
        export_sentence_transformers(other, folder / "towers", torch.ones(3, 2))
