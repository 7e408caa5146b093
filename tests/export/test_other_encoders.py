"""Students on encoders of other families, exported to stock modules."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.export import export_sentence_transformers
from modeling_rabtriever.export.onnx_towers import export_onnx
from tests.conftest import DOCUMENTS
from tests.training.tiny_encoders import write_sentence_transformer
from training.encoders import other_encoder, student_of


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "mean"), ("mpnet", "cls"), ("roberta", "lasttoken"), ("distilbert", "mean")]
)
def test_students_on_other_encoders(
    reranker: GenerativeRerankerModel, tmp_path: Path, family: str, pooling: str
) -> None:
    """Checked against the student by the exports themselves; here against one another, through plain libraries."""
    folder = write_sentence_transformer(tmp_path / "st", family, pooling, "bring ")
    student = student_of(other_encoder(str(folder), reranker.processor), reranker, embedding_dim=16)
    towers = export_sentence_transformers(student, tmp_path / "towers")
    graphs = export_onnx(student, tmp_path / "graphs")
    for side, expected in (("query", student.encode_query), ("document", student.encode_document)):
        tower = SentenceTransformer(str(towers / side), device="cpu")
        vectors = tower.encode(DOCUMENTS, convert_to_tensor=True)
        torch.testing.assert_close(vectors, expected(DOCUMENTS), atol=1e-4, rtol=1e-4)
        session = onnxruntime.InferenceSession(str(graphs / side / "model.onnx"))
        read = AutoTokenizer.from_pretrained(graphs / side)(
            DOCUMENTS, padding=True, truncation=True, return_tensors="np"
        )
        (found,) = session.run(None, {name: read[name] for name in ("input_ids", "attention_mask")})
        torch.testing.assert_close(torch.from_numpy(found), vectors, atol=1e-4, rtol=1e-4)
