"""What a training run would take, without weights or network."""

import json
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever.stages import train_reranker

SIZES = {"saycan": 134_515_008, "qwen2.5-0.5b": 494_032_768, "qwen3-0.6b": 596_049_920, "qwen2-7b-paper": 7_615_616_512}


@pytest.mark.parametrize(("recipe", "parameters"), SIZES.items())
def test_recipes_of_real_backbones(
    recipe: str, parameters: int, beir_folder: Path, capsys: Any, tmp_path: Path
) -> None:
    flags = [
        "--config",
        recipe,
        "--data",
        str(beir_folder),
        "--output_dir",
        str(tmp_path / "x"),
    ]
    train_reranker.main([*flags, "--dry_run", "true"])
    text = capsys.readouterr().out
    assert f"{parameters:,}" in text
    assert "not from the Hub" in text and "is assumed" in text
    assert not (tmp_path / "x").exists()


def _plan(beir_folder: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    from modeling_rabtriever.reranking.dry_run import plan
    from modeling_rabtriever.stages.recipe import parse_stage

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": True}
    backbone = tmp_path / "backbone.json"
    backbone.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400, **sizes}))
    settings = {
        "data": beir_folder,
        "output_dir": tmp_path,
        "model_name_or_path": backbone,
        "negatives_per_positive": 3,
    }
    settings |= {"max_document_length": 16, "max_query_length": 16, "instruction": "R:", "num_train_epochs": 2}
    settings |= {"per_device_train_batch_size": 8, "activation_checkpointing": "false", **changes}
    flags = [item for key, value in settings.items() for item in (f"--{key}", str(value))]
    run, model, prompt, _, negatives, lora, _, config = parse_stage("train_reranker", train_reranker.ARGUMENTS, flags)
    return plan(model, prompt, negatives, lora, config, run)


def test_counts(beir_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _plan(beir_folder, tmp_path)
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 3 * 32 + 2 * 32) + 32  # projections, q-k-v biases, norms
    assert found["parameters"] == found["trainable"] == 400 * 32 + matrices
    assert found["steps"] == 2 * 36 * 4 // 8  # 36 judged training queries, groups of 4
    assert _plan(beir_folder, tmp_path, negatives_per_positive="null")["pairs"] == 2 * 36 * 12  # the whole corpus
    assert found["flops"] == 6 * matrices * found["tokens_per_pair_at_most"] * found["pairs"]
    assert found["memory_gb"]["optimiser (AdamW)"] == 2 * found["memory_gb"]["weights"]
    lora = _plan(beir_folder, tmp_path, use_peft="true", lora_r=2)
    assert 0 < lora["trainable"] < found["trainable"] / 5
    assert lora["flops"] < found["flops"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    shared = _plan(beir_folder, tmp_path)
    assert shared["steps"] == found["steps"]  # devices divide the batch of a step
    assert shared["memory_gb"]["activations"] == found["memory_gb"]["activations"] / 4
    assert _plan(tmp_path / "no-data", tmp_path)["steps"] is None


def test_unfit_plans_are_refused(beir_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accepted: two that differ"):
        _plan(beir_folder, tmp_path, false_answer="<T>")
    with pytest.raises(ValueError, match="at most the backbone's window, 64"):
        _plan(beir_folder, tmp_path, max_query_length=64)
    with pytest.raises(ValueError, match="accepted without network: .*qwen3-0.6b"):
        _plan(beir_folder, tmp_path, model_name_or_path="someone/unknown-model")
