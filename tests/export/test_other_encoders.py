"""Students on encoders of other families, exported to stock modules."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.encoders import other_encoder, student_of
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.export import export_sentence_transformers, graph_engines
from modeling_rabtriever.export.onnx_towers import export_onnx
from tests.conftest import DOCUMENTS
from tests.training.tiny_encoders import write_sentence_transformer


def make_student(reranker: GenerativeRerankerModel, folder: Path, family: str, pooling: str) -> RabtrieverModel:
    source = write_sentence_transformer(folder / "st", family, pooling, "bring ")
    encoder = other_encoder(str(source), reranker.processor)
    return student_of(encoder, reranker.answer_direction, StudentArguments()).served()


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "mean"), ("mpnet", "cls"), ("roberta", "lasttoken"), ("distilbert", "mean")]
)
def test_towers(reranker: GenerativeRerankerModel, tmp_path: Path, family: str, pooling: str) -> None:
    student = make_student(reranker, tmp_path, family, pooling)
    towers = export_sentence_transformers(student, tmp_path / "towers")
    for side, expected in (("query", student.encode_query), ("document", student.encode_document)):
        vectors = SentenceTransformer(str(towers / side), device="cpu").encode(DOCUMENTS, convert_to_tensor=True)
        torch.testing.assert_close(vectors, expected(DOCUMENTS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "mean"), pytest.param("mpnet", "cls", marks=pytest.mark.slow)]
)  # the others are built alike
def test_graphs(reranker: GenerativeRerankerModel, tmp_path: Path, family: str, pooling: str) -> None:
    student = make_student(reranker, tmp_path, family, pooling)
    graphs = export_onnx(student, tmp_path / "graphs")
    for side, expected in (("query", student.encode_query), ("document", student.encode_document)):
        session = onnxruntime.InferenceSession(str(graphs / side / "model.onnx"))
        tokenizer = AutoTokenizer.from_pretrained(graphs / side)
        read = tokenizer(DOCUMENTS, padding=True, truncation=True, return_tensors="np")
        (found,) = session.run(["sentence_embedding"], {name: read[name] for name in ("input_ids", "attention_mask")})
        torch.testing.assert_close(torch.from_numpy(found), expected(DOCUMENTS), atol=1e-4, rtol=1e-4)
        # Other readers take the first output, or the states by their name, and the towers' files beside the graph.
        assert [output.name for output in session.get_outputs()] == ["sentence_embedding", "last_hidden_state"]
        assert (graphs / side / "modules.json").is_file() and not (graphs / side / "model.safetensors").exists()
        engines = {engine.name: engine.command for engine in graph_engines(graphs / side)}
        assert set(engines) == {"fastembed", "OpenVINO", "sentence-transformers with optimum-onnx"}
        assert f"dim={found.shape[1]}," in engines["fastembed"]
        for command in engines.values():
            compile(command, "command", "exec")
