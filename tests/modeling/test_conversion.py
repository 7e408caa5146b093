"""Students saved before version 0.1, written by hand as that version wrote them: the same vectors, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.loading import load_model
from tests.conftest import DOCUMENTS, QUERIES

from .old_students import STATE, write_old

SHAPES: dict[str, dict[str, Any]] = {
    "two heads": {"num_heads": 2, "predictor_hidden_size": 7},
    "one head": {"num_heads": 1, "predictor_hidden_size": 7, "feature_poolings": ["mean"]},
    "a document's own score": {"num_heads": 2, "predictor_hidden_size": 7, "document_prior": True},
    "the paper's": {"predictor_type": "paper", "feature_poolings": ["last"], "predictor_hidden_size": STATE},
    "the last layer by its number": {"num_heads": 2, "predictor_hidden_size": 7, "feature_layers": [2]},
}


def pooled(reranker: GenerativeRerankerModel, ids: list[int], poolings: list[str]) -> Tensor:
    states = reranker.backbone.base_model(torch.tensor([ids])).last_hidden_state[0]
    return torch.cat([{"last": states[-1], "mean": states.mean(0)}[name] for name in poolings])


def old_query_vector(weights: dict[str, Tensor], settings: dict[str, Any], features: Tensor) -> Tensor:
    """`(B^T (w_T - w_F)) * f(x_Q)`, where each head's MLP makes its share of the factors; then 1 for a prior."""
    w = {name.removeprefix("predictor."): value for name, value in weights.items()}
    heads, units = settings["num_heads"], settings["predictor_hidden_size"]
    share = len(w["query_output.bias"]) // heads
    factors = []
    for head in range(heads):
        own = slice(head * units, (head + 1) * units)
        hidden = torch.relu(w["query_hidden.weight"][own] @ features + w["query_hidden.bias"][own])
        rows = slice(head * share, (head + 1) * share)
        factors.append(w["query_output.weight"][rows, :, 0] @ hidden + w["query_output.bias"][rows])
    direction = w["answer_head.weight"][0] - w["answer_head.weight"][1]
    if "output_map.weight" in w:
        direction = w["output_map.weight"].T @ direction
    vector = direction * torch.cat(factors)
    return torch.cat([vector, torch.ones(1)]) if settings["document_prior"] else vector


def old_document_vector(weights: dict[str, Tensor], settings: dict[str, Any], features: Tensor) -> Tensor:
    """`A x_D`, or `x_D` itself (the paper's); then the document's own score."""
    w = {name.removeprefix("predictor."): value for name, value in weights.items()}
    if settings["predictor_type"] == "paper":
        return features
    vector = w["document_map.weight"] @ features + w["document_map.bias"]
    if not settings["document_prior"]:
        return vector
    return torch.cat([vector, w["prior.weight"] @ features + w["prior.bias"]])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_old_student_has_the_vectors_it_had(
    reranker: GenerativeRerankerModel, tmp_path: Path, shape: dict[str, Any]
) -> None:
    settings = write_old(tmp_path, reranker, **shape)
    weights, poolings = load_file(tmp_path / "model.safetensors"), settings["feature_poolings"]
    processor = reranker.processor
    queries = [
        old_query_vector(weights, settings, pooled(reranker, ids, poolings)) for ids in processor.query_ids(QUERIES)
    ]
    documents = [
        old_document_vector(weights, settings, pooled(reranker, ids, poolings))
        for ids in processor.document_ids(DOCUMENTS)
    ]
    student = load_model(tmp_path)
    assert isinstance(student, RabtrieverModel) and not student.training
    assert student.config.embedding_dim == settings["embedding_dim"]
    torch.testing.assert_close(student.encode_query(QUERIES), torch.stack(queries), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(student.encode_document(DOCUMENTS), torch.stack(documents), atol=1e-4, rtol=1e-4)


def test_what_was_converted_is_saved_as_any_student(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    write_old(tmp_path / "old", reranker, **SHAPES["a document's own score"])
    student = load_model(tmp_path / "old")
    student.save_pretrained(tmp_path / "new")
    loaded = AutoModel.from_pretrained(tmp_path / "new")
    assert isinstance(loaded, RabtrieverModel)
    torch.testing.assert_close(loaded.encode_query(QUERIES), student.encode_query(QUERIES))
    torch.testing.assert_close(loaded.encode_document(DOCUMENTS), student.encode_document(DOCUMENTS))
    names = load_file(tmp_path / "new" / "model.safetensors").keys()
    assert not [name for name in names if "answer_head" in name or "prior" in name or "shift" in name]
    assert "predictor_type" not in json.loads((tmp_path / "new" / "config.json").read_text())


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)]
)
def test_its_backbone_is_in_the_type_asked_for_and_its_vectors_are_those_of_a_saved_one(
    reranker: GenerativeRerankerModel, tmp_path: Path, asked: str, expected: torch.dtype
) -> None:
    write_old(tmp_path / "old", reranker, torch.bfloat16, **SHAPES["two heads"])
    student = load_model(tmp_path / "old", dtype=asked)
    assert student.backbone.dtype == expected
    assert {weight.dtype for weight in student.predictor.parameters()} == {torch.float32}
    student.save_pretrained(tmp_path / "new")
    again = load_model(tmp_path / "new")
    assert again.backbone.dtype == expected
    assert torch.equal(again.encode_document(DOCUMENTS), student.encode_document(DOCUMENTS))  # positions as well


@pytest.mark.parametrize(
    "load", [AutoModel.from_pretrained, RabtrieverModel.from_pretrained, AutoConfig.from_pretrained]
)
def test_transformers_says_how_to_convert_it(
    reranker: GenerativeRerankerModel, tmp_path: Path, load: Callable[..., object]
) -> None:
    write_old(tmp_path, reranker)
    with pytest.raises(
        ValueError, match=r"older than Rabtriever 0\.1; accepted: .*load_model\(old\)\.save_pretrained\(new\)"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"shared_dim": 4}, "with shared_dim 4; accepted: 0"),
        ({"query_anchors": [[5, 6]]}, r"with query_anchors \[\[5, 6\]\]; accepted: \[\]"),
        ({"document_anchors": [[5]]}, r"with document_anchors \[\[5\]\]; accepted: \[\]"),
        ({"feature_layers": [-1, 1]}, r"with feature_layers \[-1, 1\]; accepted: \[-1\]"),
        ({"feature_layers": [1]}, r"with feature_layers \[1\]; accepted: \[-1\]"),
        ({"feature_whitening": True}, "with feature_whitening True; accepted: False"),
    ],
)
def test_what_read_more_than_a_students_last_states_is_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    write_old(tmp_path, reranker, **setting)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


HIDDEN = "predictor.query_hidden.weight"
UP = "backbone.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(HIDDEN), f"has missing or unexpected weights: {HIDDEN}; accepted: this student's weights"),
        (lambda w: w.pop("predictor.shift.bias"), "has missing or unexpected weights: predictor.shift.bias; accepted"),
        (
            lambda w: w.update({"predictor.prior.bias": torch.ones(1)}),
            "missing or unexpected weights: predictor.prior.bias",
        ),
        (lambda w: w.pop(UP), f"lacks weights of this model: {UP}; accepted: all of them"),
        (lambda w: w.update({HIDDEN: w[HIDDEN].byte()}), f"has missing or unexpected weights: {HIDDEN}; accepted"),
        (lambda w: w.update({UP: (50 * w[UP]).to(torch.int8)}), f"whole numbers .*{UP}; accepted"),
        (
            lambda w: w.update({"predictor.shared.scale": torch.ones(4)}),
            "missing or unexpected weights: predictor.shared.scale; accepted",
        ),
        (lambda w: w.update({"extra": torch.ones(4)}), "has missing or unexpected weights: extra; accepted"),
        (
            lambda w: w.update({"backbone.extra": torch.ones(4)}),
            "holds tensors this model does not have: backbone.extra; accepted",
        ),
        (lambda w: w.update({UP: torch.ones(3, 3)}), r"up_proj.weight is \(3, 3\) in its weights, \(48, 32\) by its"),
        (lambda w: w.update({"predictor.query_hidden.bias": torch.ones(3)}), "by its config.json; accepted"),
        (lambda w: [w.pop(name) for name in [*w] if name.startswith("backbone.")], "cannot be loaded"),
    ],
)
def test_weights_of_something_else_are_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    write_old(tmp_path, reranker, **SHAPES["two heads"])
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message) as refused:
        load_model(tmp_path)
    assert "accepted" in str(refused.value)


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"])
def test_a_backbone_of_other_sizes_takes_no_memory(
    reranker: GenerativeRerankerModel, tmp_path: Path, name: str
) -> None:
    write_old(tmp_path, reranker)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= {name: 10**9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusals = "accepted: the configuration its weights were saved with|cannot be loaded .*layer_type.*accepted"
    with pytest.raises(ValueError, match=refusals):
        load_model(tmp_path)


def test_a_tensor_of_that_time_does_not_make_a_student_old(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "answer_head.weight": torch.ones(2, 32)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="cannot be loaded .*predictor_type"):
        load_model(tmp_path)
