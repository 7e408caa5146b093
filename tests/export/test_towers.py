"""The student as stock modules: two towers, both in one folder, ONNX graphs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.export import export_sentence_transformers
from tests.conftest import rest_slow
from tests.modeling.students import student_with

from .conftest import FAMILIES, KINDS

QUERIES = ["I spilled my drink.", "  it is dark\t", "a <T> and a <|endoftext|> in a text", "drink " * 60, "\r\na}"]
DOCUMENTS = ["bring the sponge", "  call a doctor\n\n", "ünïcode 🙂 text!\u3000", "sponge " * 60, "two\nlines}", "}"]
SHAPES: dict[str, dict[str, Any]] = {
    "two poolings": {"embedding_dim": 24},
    "mean first": {"embedding_dim": 8, "feature_poolings": ["mean", "last"]},
    "last token": {"embedding_dim": 8, "feature_poolings": ["last"]},
    "all poolings": {"embedding_dim": 8, "query_hidden_size": 7, "feature_poolings": ["last", "mean", "first"]},
    "paper": {"document_map": False, "query_hidden_size": 32, "feature_poolings": ["last"]},
}


def make_student(reranker: GenerativeRerankerModel, shape: str) -> RabtrieverModel:
    return student_with(reranker, **SHAPES[shape])


def scores_agree(found: torch.Tensor, student: RabtrieverModel) -> None:
    expected = student.similarity(student.encode_query(QUERIES), student.encode_document(DOCUMENTS))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_towers_score_as_the_student_does(
    make_reranker: Callable[..., GenerativeRerankerModel], family: str, shape: str, tmp_path: Path
) -> None:
    student = make_student(make_reranker(family), shape)
    folder = export_sentence_transformers(student, tmp_path / "towers")
    assert not list(folder.rglob("*.py")) and not list(folder.rglob("*.bin"))
    towers = [SentenceTransformer(str(folder / side), device="cpu") for side in ("query", "document")]
    queries, documents = (
        tower.encode(texts, convert_to_tensor=True) for tower, texts in zip(towers, (QUERIES, DOCUMENTS), strict=True)
    )
    scores_agree(towers[0].similarity(queries, documents), student)
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)
    assert both.similarity_fn_name == "dot"
    assert not any(both.prompts.values()) and not any(towers[0].prompts.values())  # servers do not send them


@pytest.mark.parametrize("side", rest_slow(["left", "right"]))
@pytest.mark.parametrize("kind", KINDS)
def test_any_tokenizer(
    make_teacher: Callable[..., GenerativeRerankerModel], kind: str, side: str, tmp_path: Path
) -> None:
    teacher = make_teacher(kind, "llama", {"query_truncation_side": side})
    student = make_student(teacher, "two poolings")
    folder = export_sentence_transformers(student, tmp_path / "towers")
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)


def test_a_qwen2_is_written_as_a_llama(make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    student = make_student(make_teacher(num_key_value_heads=2, rope_parameters=rope), "last token")
    folder = export_sentence_transformers(student, tmp_path / "towers") / "query"
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llama" and config["attention_bias"] and config["architectures"] == ["LlamaModel"]
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0  # for transformers 4 and 5
    weights = load_file(folder / "model.safetensors")
    assert not weights["layers.1.self_attn.o_proj.bias"].any() and weights["layers.1.self_attn.q_proj.bias"] is not None
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    student = make_student(make_teacher(num_key_value_heads=2, **windows), "last token")
    with pytest.raises(
        ValueError, match="attends to 8 tokens, fewer than the longest prompt, .*; accepted for an export"
    ):
        export_sentence_transformers(student, tmp_path / "windows")
    assert not (tmp_path / "windows").exists()


@pytest.mark.parametrize(
    "family", rest_slow(["gpt_neo", "gemma3_text", "gpt2", "opt", "gpt_neox", "mistral", "qwen3"], 2)
)
def test_any_family(make_teacher: Callable[..., GenerativeRerankerModel], family: str, tmp_path: Path) -> None:
    student = make_student(make_teacher("gpt2", family, **FAMILIES.get(family, {})), "two poolings")
    folder = export_sentence_transformers(student, tmp_path / "towers")
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)


def test_the_shapes_of_a_real_qwen2(make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    """Qwen2.5-0.5B's, with two layers of 24 and a small vocabulary."""
    sizes = {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864}
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    windows = {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1}
    others = {"tie_word_embeddings": True, "rms_norm_eps": 1e-6, "initializer_range": 0.02}
    student = make_student(make_teacher(**sizes, **windows, **others, rope_parameters=rope), "last token")
    folder = export_sentence_transformers(student, tmp_path / "towers")
    config = json.loads((folder / "query" / "config.json").read_text())
    assert (config["model_type"], config["head_dim"], config["num_key_value_heads"]) == ("llama", 64, 2)
    both = SentenceTransformer(str(folder / "combined"), device="cpu")
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)


def test_a_student_without_a_map_and_of_two_poolings(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    """Its document's vector is the features themselves, so their order is that of sentence-transformers."""
    student = student_with(reranker, document_map=False, feature_poolings=["mean", "last"])
    both = SentenceTransformer(str(export_sentence_transformers(student, tmp_path / "towers") / "combined"))
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)
    turned = student_with(reranker, document_map=False, feature_poolings=["last", "mean"])
    both = SentenceTransformer(str(export_sentence_transformers(turned, tmp_path / "turned") / "combined"))
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), turned)


def test_a_student_in_half_precision_exports_in_full(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    student, half = make_student(reranker, "two poolings"), make_student(reranker, "two poolings")
    half.backbone.to(torch.bfloat16)
    student.backbone.load_state_dict(half.backbone.state_dict())
    both = SentenceTransformer(str(export_sentence_transformers(half, tmp_path / "towers") / "combined"), device="cpu")
    scores_agree(both.similarity(both.encode_query(QUERIES), both.encode_document(DOCUMENTS)), student)


def test_queries_cut_at_their_beginning(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    processor = RabtrieverProcessor(
        reranker.processor.tokenizer,
        instruction="Relevant:",
        max_document_length=16,
        max_query_length=8,
        query_truncation_side="left",
    )
    reranker.processor = processor
    student = make_student(reranker, "two poolings")
    folder = export_sentence_transformers(student, tmp_path / "towers")
    query = "I spilled my drink and it is dark in here"
    found = SentenceTransformer(str(folder / "query"), device="cpu").encode([query])
    np.testing.assert_allclose(found, student.encode_query([query]).numpy(), atol=1e-4)
    shorter = student.encode_query([query.replace("spilled", "lost")]).numpy()
    np.testing.assert_allclose(found, shorter, atol=1e-4)  # its beginning is not read


def test_a_folder_that_holds_something_stays_as_it_is(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match=r"full already exists; accepted: a new folder, or an empty one"):
        export_sentence_transformers(make_student(reranker, "paper"), tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_refused_student_leaves_nothing(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(reranker, "paper")
    with torch.no_grad():
        student.backbone.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="differ from the model's by nan of the largest"):
        export_sentence_transformers(student, tmp_path / "towers")
    student = make_student(reranker, "paper")
    monkeypatch.setattr(student, "is_quantized", True, raising=False)
    with pytest.raises(ValueError, match="this model is quantised; accepted for an export: its full weights"):
        export_sentence_transformers(student, tmp_path / "towers")
    student = make_student(reranker, "paper")
    student.backbone.config.num_key_value_heads = 1
    with pytest.raises(ValueError, match="builds another backbone from this model's configuration .*; accepted"):
        export_sentence_transformers(student, tmp_path / "towers")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx(make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from modeling_rabtriever.export.onnx_towers import export_onnx

    student = make_student(make_teacher("added words", num_key_value_heads=2), "two poolings")
    folder = export_onnx(student, tmp_path / "onnx")
    vectors = []
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        # Neither transformers nor torch is needed, and no setting: over-long texts are cut, special tokens are text.
        tokenizer = Tokenizer.from_file(str(folder / side / "tokenizer.json"))
        session = onnxruntime.InferenceSession(str(folder / side / "model.onnx"))

        def run(texts: list[str], tokenizer: Tokenizer = tokenizer, session: Any = session) -> torch.Tensor:
            encoded = tokenizer.encode_batch(texts)
            ids, mask = (np.array([getattr(row, name) for row in encoded]) for name in ("ids", "attention_mask"))
            return torch.from_numpy(
                session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            )  # the first output

        vectors.append(run(texts))
        torch.testing.assert_close(run(texts[3:4] * 2)[:1], vectors[-1][3:4], atol=1e-4, rtol=1e-4)
    scores_agree(student.similarity(*vectors), student)
