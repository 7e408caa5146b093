"""The teacher in sentence-transformers, without custom code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.export import export_cross_encoder, pair_limits
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES, rest_slow

from .conftest import FAMILIES as OTHER_FAMILIES
from .conftest import KINDS

PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
ODD_PAIRS = [
    ("a\n\nb.", "ends with a line\n"),
    (" two  blanks\t", "\r\nü🙂x!\u3000"),
    ("in a}", "}"),
    ("say <T> now", "the <F>"),
    ("<|endoftext|>", "a </s> b"),
]

LOADER = """
import json, sys
sys.modules["modeling_rabtriever"] = None
from sentence_transformers import CrossEncoder
from transformers import AutoModel
model = CrossEncoder(sys.argv[1], device="cpu")
pairs = json.load(sys.stdin)
print(json.dumps([model.predict(pairs).tolist(), model.rank(pairs[0][0], ["a lamp", "the sponge"])[0]["score"]]))
"""


def scores_agree(folder: Path, reranker: GenerativeRerankerModel) -> None:
    """In batches of mixed lengths, and pair by pair."""
    encoder = CrossEncoder(str(folder), device="cpu")
    expected = reranker.predict(PAIRS + ODD_PAIRS)
    assert expected.std() > 0.01
    for size in (1, 4, 32):
        found = encoder.predict(PAIRS + ODD_PAIRS, batch_size=size, convert_to_tensor=True)
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("family", rest_slow(FAMILIES))
def test_scores_are_ours_without_custom_code(
    make_reranker: Callable[..., GenerativeRerankerModel], family: str, tmp_path: Path
) -> None:
    reranker = make_reranker(family)
    folder = export_cross_encoder(reranker, tmp_path / "model")
    finished = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder)],
        input=json.dumps(PAIRS + ODD_PAIRS),
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    scores, best = json.loads(finished.stdout)
    torch.testing.assert_close(torch.tensor(scores), reranker.predict(PAIRS + ODD_PAIRS), atol=1e-5, rtol=0)
    assert best == pytest.approx(reranker.rank(QUERIES[0], ["a lamp", "the sponge"])[0]["score"], abs=1e-5)
    assert not list(folder.glob("*.py"))
    config = json.loads((folder / "config.json").read_text())
    identity = "torch.nn.modules.linear.Identity"  # for versions of sentence-transformers from 4 on, and before
    assert config["sentence_transformers"]["activation_fn"] == identity
    assert config["sbert_ce_default_activation_function"] == identity


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "opt", "mistral", "gemma3_text"])
def test_batches_of_mixed_lengths_with_learned_positions_and_local_attention(
    make_teacher: Callable[..., GenerativeRerankerModel], family: str, tmp_path: Path
) -> None:
    reranker = make_teacher(
        "gpt2", family, {"max_document_length": 40, "max_query_length": 40}, **OTHER_FAMILIES.get(family, {})
    )
    scores_agree(export_cross_encoder(reranker, tmp_path / "model"), reranker)


@pytest.mark.parametrize("kind", KINDS)
def test_any_tokenizer(make_teacher: Callable[..., GenerativeRerankerModel], kind: str, tmp_path: Path) -> None:
    reranker = make_teacher(kind, "qwen2", {"max_document_length": 40, "max_query_length": 40}, num_key_value_heads=2)
    scores_agree(export_cross_encoder(reranker, tmp_path / "model"), reranker)


def test_a_reranker_loaded_from_its_folder_exports_alike(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved").eval()
    folder = export_cross_encoder(loaded, tmp_path / "export")
    assert "abtriever" not in (folder / "tokenizer_config.json").read_text()
    scores_agree(folder, reranker)


def test_a_teacher_in_half_precision_exports_in_full(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    half = make_reranker().to(torch.bfloat16)
    full = make_reranker()
    full.load_state_dict(half.state_dict())
    scores_agree(export_cross_encoder(half, tmp_path / "export"), full)


def test_over_long_texts_are_cut_as_the_folder_says(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = export_cross_encoder(reranker, tmp_path / "model")
    longest = reranker.processor.max_pair_length
    limits = pair_limits(reranker)
    assert "Documents of up to 16 tokens and queries of up to 16 get the teacher's scores. A tokenizer" in limits
    assert f"a longer prompt is cut to {longest} tokens, the longer text first and at its end" in limits
    assert limits in (folder / "README.md").read_text()
    encoder = CrossEncoder(str(folder), device="cpu")
    endless = "bring the sponge " * 200
    for query, suffix in zip(QUERIES, reranker.processor.query_ids(QUERIES), strict=True):
        for document in (endless, "🙂" * 400):
            ids = encoder.preprocess([(query, document)])["input_ids"][0].tolist()
            assert ids[-len(suffix) :] == suffix  # the query is whole
            assert len(ids) == longest
    both = [("drink " * 100, endless), ("drink " * 100, "a lamp"), *PAIRS]
    scores = encoder.predict(both, convert_to_tensor=True)
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[0], reranker.predict(both[:1])[0], atol=1e-5, rtol=0)  # the limits are equal


def test_a_refused_teacher_leaves_nothing(
    make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlike = {"document_template": "({document})\n"}
    with pytest.raises(
        ValueError, match="accepted for a cross-encoder: templates with the same space or special token"
    ):
        export_cross_encoder(make_teacher("gpt2", "llama", unlike), tmp_path / "model")
    with pytest.raises(
        ValueError, match="apertus has no classifier in transformers .*; accepted: a family that has one"
    ):
        export_cross_encoder(make_teacher("gpt2", "apertus"), tmp_path / "model")
    reranker = make_teacher("gpt2", "llama")
    monkeypatch.setattr(reranker, "is_quantized", True, raising=False)
    with pytest.raises(ValueError, match="this model is quantised; accepted for an export: its full weights"):
        export_cross_encoder(reranker, tmp_path / "model")
    monkeypatch.undo()
    with torch.no_grad():
        reranker.backbone.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="scores of the cross-encoder differ from the model's by nan"):
        export_cross_encoder(reranker, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_refused_before_anything_is_computed(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")

    def never(*given: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("modeling_rabtriever.export.cross_encoder.stock_backbone", never)
    with pytest.raises(ValueError, match="already exists; accepted: a new folder, or an empty one"):
        export_cross_encoder(reranker, tmp_path)
    with pytest.raises(
        ValueError, match="this teacher cannot be exported .*; accepted: a teacher .*, and a folder to write"
    ):
        export_cross_encoder(reranker, tmp_path / "mine.txt" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
