"""Weights that are not all of the model's own are refused, whoever loads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.loading import load_model
from tests.conftest import DOCUMENTS

UP = "backbone.layers.0.mlp.up_proj.weight"
MAP = "predictor.document_map.weight"


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("load", [AutoModel.from_pretrained, RabtrieverModel.from_pretrained])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(MAP), f"lacks weights of this model: {MAP}; accepted: all of them"),
        (lambda weights: weights.pop("backbone.embed_tokens.weight"), r"lacks weights.*backbone\.embed_tokens\.weight"),
        (
            lambda weights: [weights.pop(name) for name in [*weights] if ".layers.1." in name],
            r"lacks weights.*backbone\.layers\.1\.input_layernorm\.weight.* and \d more; accepted",
        ),
        (lambda weights: weights.pop("predictor.query_output.bias"), r"lacks weights.*predictor\.query_output\.bias"),
        (lambda weights: weights.update({UP: (50 * weights[UP]).to(torch.int8)}), f"whole numbers .*{UP}; accepted"),
        (lambda weights: weights.update({MAP: weights[MAP] > 0}), f"whole numbers or truth values.*{MAP}; accepted"),
        (lambda weights: weights.update({MAP: torch.ones(3, 4)}), rf"another shape: {MAP} \(3, 4\) for \(24, 64\)"),
        (lambda weights: weights.update(extra=torch.ones(3)), "tensors this model does not have: extra; accepted"),
    ],
)
def test_weights_of_something_else_are_refused(
    student: RabtrieverModel,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    load: Callable[..., object],
) -> None:
    student.save_pretrained(tmp_path)
    _rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_shard_that_is_not_there_is_named(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path, max_shard_size="40KB")
    shard = max(tmp_path.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name}, which its index of weights names, is missing; accepted"):
        GenerativeRerankerModel.from_pretrained(tmp_path)


def test_shards_beside_an_earlier_models_weights_are_refused(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    with torch.no_grad():
        student.predictor.document_map.weight.mul_(2)
    student.save_pretrained(tmp_path, max_shard_size="40KB")  # transformers would read the earlier file
    with pytest.raises(
        ValueError, match=r"holds model\.safetensors and model-00001-of-.*; accepted: one set of weights"
    ):
        RabtrieverModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    loaded = RabtrieverModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.predictor.document_map.weight, student.predictor.document_map.weight)
    loaded.save_pretrained(tmp_path)  # an index whose shards are gone stands in nobody's way
    RabtrieverModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [None, {"text_config": None}, {"text_config": {}}])
@pytest.mark.parametrize("kind", ["student", "reranker"])
def test_without_a_backbone_in_its_configuration_no_large_one_is_made(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, content: dict[str, object] | None
) -> None:
    model = request.getfixturevalue(kind)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(json.dumps({**settings, **content}))
    with pytest.raises(ValueError, match=r"config\.json is missing or has no text_config; accepted"):
        type(model).from_pretrained(tmp_path)


def test_a_folder_without_weights_is_named(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors, whole or in parts; accepted"):
        load_model(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_file_of_weights_that_was_cut_is_named(student: RabtrieverModel, tmp_path: Path, kept: int) -> None:
    student.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model.safetensors is no whole safetensors file.*accepted"):
        RabtrieverModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["qwen2", "llama"])  # with a tied head, which is no tensor of its own, and without
def test_a_plain_language_model_has_to_be_whole_too(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path, family: str
) -> None:
    reranker = make_reranker(family)
    answers = {name: getattr(reranker.config, name) for name in ("true_token_id", "false_token_id")}
    config = GenerativeRerankerConfig(text_config=reranker.config.text_config, **answers)
    reranker.backbone.save_pretrained(tmp_path)
    loaded = GenerativeRerankerModel.from_pretrained(tmp_path, config=config)
    torch.testing.assert_close(loaded.answer_rows, reranker.answer_rows)
    _rewrite(tmp_path, lambda weights: weights.update(mask=torch.ones(2, dtype=torch.bool)))
    GenerativeRerankerModel.from_pretrained(tmp_path, config=config)  # old checkpoints hold buffers
    _rewrite(tmp_path, lambda weights: weights.update({f"model.{UP[9:]}": torch.ones(48, 32, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=rf"whole numbers .*model\.{UP[9:]}; accepted"):
        GenerativeRerankerModel.from_pretrained(tmp_path, config=config)
    _rewrite(tmp_path, lambda weights: weights.pop(f"model.{UP[9:]}"))
    with pytest.raises(ValueError, match=f"lacks weights of this model: backbone.model.{UP[9:]}; accepted"):
        GenerativeRerankerModel.from_pretrained(tmp_path, config=config)


def test_what_was_asked_about_loading_is_told(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path)
    loaded, info = RabtrieverModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    torch.testing.assert_close(loaded.encode_document(DOCUMENTS), student.encode_document(DOCUMENTS))
    with pytest.raises(ValueError, match="variant is 'fp16'; accepted: none"):
        RabtrieverModel.from_pretrained(tmp_path, variant="fp16")
    with pytest.raises(ValueError, match="variant is 'fp16'; accepted: none"):  # nothing that could not be loaded
        student.save_pretrained(tmp_path / "other", variant="fp16")
    with pytest.raises(ValueError, match="variant is 'fp16'; accepted: none"):
        student.save_pretrained(tmp_path / "other", True, None, False, "5GB", "fp16")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("setting", ["load_in_4bit", "load_in_8bit"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_weights_that_are_not_quantised_as_the_configuration_says_are_refused(
    student: RabtrieverModel, tmp_path: Path, setting: str
) -> None:
    student.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", setting: True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quantization_config in its config.json says .*; accepted"):
        load_model(tmp_path)
