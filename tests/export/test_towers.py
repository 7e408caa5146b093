"""The student as stock modules: two towers, both in one folder, ONNX graphs; what servers can do with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.export import export_sentence_transformers, prompt_tokenizer, server_limits

QUERIES = ["I spilled my drink.", "it is dark", "a <T> and a <pad> in a text", "drink " * 60]
DOCUMENTS = ["bring the sponge", "  call a doctor\n", "ünïcode 🙂 text!", "sponge " * 60, "two\nlines"]
SHAPES: dict[str, dict[str, Any]] = {
    "hadamard": {"embedding_dim": 24, "num_heads": 3},
    "prior": {"embedding_dim": 25, "num_heads": 3, "document_prior": True},
    "mean first": {"embedding_dim": 8, "feature_poolings": ["mean", "last"]},
    "last token": {"embedding_dim": 8, "feature_poolings": ["last"]},
    "paper": {"predictor_type": "paper", "feature_poolings": ["last"]},
}


def make_student(reranker: GenerativeRerankerModel, shape: str) -> RabtrieverModel:
    torch.manual_seed(1)
    return RabtrieverModel.from_teacher(reranker, **SHAPES[shape])


def scores_agree(found: torch.Tensor, student: RabtrieverModel) -> None:
    expected = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "family", ["qwen2", "llama"]
)  # one whose tokenizer class keeps our normalizer, one that does not
def test_towers_score_as_the_student_does(
    make_reranker: Callable[..., GenerativeRerankerModel], family: str, shape: str, tmp_path: Path
) -> None:
    student = make_student(make_reranker(family), shape)
    folder = export_sentence_transformers(student, tmp_path / "towers")
    assert not list(folder.rglob("*.py")) and not list(folder.rglob("*.bin"))
    towers = [SentenceTransformer(str(folder / side), device="cpu") for side in ("query", "document")]
    queries, documents = (
        tower.encode([text.strip() for text in texts], convert_to_tensor=True)
        for tower, texts in zip(towers, (QUERIES, DOCUMENTS), strict=True)
    )
    scores_agree(towers[0].similarity(queries, documents), student)
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    vectors = (
        both.encode_query([text.strip() for text in QUERIES]),
        both.encode_document([t.strip() for t in DOCUMENTS]),
    )
    scores_agree(both.similarity(*vectors), student)
    assert both.similarity_fn_name == "dot"


def test_a_model_that_is_still_whitened(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    student = make_student(reranker, "hadamard")
    with torch.no_grad():
        features = student.query_features(QUERIES), student.document_features(DOCUMENTS)
    student.predictor.fit_whitening(*features, damping=0.1)
    folder = export_sentence_transformers(student, tmp_path / "towers")
    assert student.config.feature_whitening
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    queries, documents = both.encode_query(QUERIES), both.encode_document([text.strip() for text in DOCUMENTS])
    scores_agree(both.similarity(queries, documents), student)


def test_queries_cut_at_their_beginning(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    processor = RabtrieverProcessor(
        reranker.processor.tokenizer,
        instruction="Relevant:",
        max_document_length=16,
        max_query_length=8,
        query_truncation_side="left",
    )
    reranker.processor = processor
    student = make_student(reranker, "hadamard")
    folder = export_sentence_transformers(student, tmp_path / "towers")
    query = "I spilled my drink and it is dark in here"
    found = SentenceTransformer(str(folder / "query"), device="cpu").encode([query])
    np.testing.assert_allclose(found, student.encode_query([query]).numpy(), atol=1e-4)
    shorter = student.encode_query([query.replace("spilled", "lost")]).numpy()
    np.testing.assert_allclose(found, shorter, atol=1e-4)  # its beginning is not read


def test_models_that_stock_modules_cannot_be(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    student = RabtrieverModel.from_teacher(reranker, embedding_dim=8, feature_layers=[-1, 1])
    with pytest.raises(
        ValueError, match=r"feature_layers is \[-1, 1\]; accepted for this export: the last layer alone"
    ):
        export_sentence_transformers(student, tmp_path / "towers")
    student = RabtrieverModel.from_teacher(reranker, embedding_dim=8, shared_dim=4)
    with pytest.raises(ValueError, match=r"shared_dim is 4; accepted for this export: 0"):
        export_sentence_transformers(student, tmp_path / "towers")
    for name in ("query_anchors", "document_anchors"):
        student = RabtrieverModel.from_teacher(reranker, **{name: [[5, 6]]})
        with pytest.raises(ValueError, match=f"{name} holds 1 texts; accepted for this export: none"):
            export_sentence_transformers(student, tmp_path / "towers")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match=r"full is there already; accepted: a new folder, or an empty one"):
        export_sentence_transformers(make_student(reranker, "paper"), tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_prompt_that_merges_with_the_text(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_document_length": 16, "max_query_length": 16, "instruction": "Relevant:"}
    tokenizer = reranker.processor.tokenizer
    reranker.processor = RabtrieverProcessor(tokenizer, query_template="Q: {query}k and {instruction}", **limits)
    monkeypatch.setattr(prompt_tokenizer, "TRIALS", ("spon", "drin"))
    assert tokenizer.tokenize(" drink") != [*tokenizer.tokenize(" drin"), "k"]
    with pytest.raises(ValueError, match="query_template: this tokenizer merges the template's words with the text"):
        export_sentence_transformers(make_student(reranker, "paper"), tmp_path / "towers")
    assert not list(tmp_path.iterdir())


def test_what_servers_can_do(make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    folder = export_sentence_transformers(make_student(make_reranker("llama"), "last token"), tmp_path / "a")
    assert server_limits(folder / "document") == {"vllm": [], "tei": []}
    assert server_limits(folder / "query")["vllm"] == []
    assert "2 dense layers in a row" in server_limits(folder / "query")["tei"][0]
    types = {module["type"] for module in json.loads((folder / "query" / "modules.json").read_text())}
    assert types == {f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense")}

    folder = export_sentence_transformers(make_student(make_reranker("qwen2"), "hadamard"), tmp_path / "b")
    reasons = server_limits(folder / "document")["vllm"]
    assert "pools 2 ways" in reasons[0] and "a blank before every text" in reasons[1]
    with pytest.raises(ValueError, match="is no tower"):
        server_limits(folder)


def test_onnx(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from modeling_rabtriever.export.onnx_towers import export_onnx

    student = make_student(reranker, "prior")
    folder = export_onnx(student, tmp_path / "onnx")
    vectors = []
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        tokenizer = Tokenizer.from_file(
            str(folder / side / "tokenizer.json")
        )  # neither transformers nor torch is needed
        tokenizer.encode_special_tokens = True
        settings = json.loads((folder / side / "tokenizer_config.json").read_text())
        tokenizer.enable_truncation(settings["model_max_length"], direction=settings["truncation_side"])
        tokenizer.enable_padding()
        encoded = tokenizer.encode_batch(texts)
        ids, mask = (np.array([getattr(row, name) for row in encoded]) for name in ("ids", "attention_mask"))
        session = onnxruntime.InferenceSession(str(folder / side / "model.onnx"))
        vectors.append(torch.from_numpy(session.run(None, {"input_ids": ids, "attention_mask": mask})[0]))
    scores_agree(student.similarity(*vectors), student)
