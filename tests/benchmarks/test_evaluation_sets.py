"""Many sets side by side, on a set that a tiny model is trained on in seconds."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import evaluation_sets, results
from benchmarks.tasks import RECIPES
from modeling_rabtriever.evaluation.labels import STUDENT, TEACHER

MODELS = {TEACHER, STUDENT, evaluation_sets.PAPER, evaluation_sets.BI_ENCODER}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    backbone = tmp_path / "backbone.json"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 320}
    backbone.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400, **sizes}))
    teacher = {"model_name_or_path": str(backbone), "instruction": "Relevant:", "activation_checkpointing": False}
    distill = {"train_encoder": "none", "embedding_dim": 16, "candidates": 6, "rounds": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "train_reranker": {**teacher, "negatives_per_positive": 3, "dev_groups": 8, "max_steps": 4},
                "distill": {**distill, "max_steps": 4},
                "evaluate": {"splits": ["test"]},
            }
        )
    )
    return path


def measured(monkeypatch: pytest.MonkeyPatch, data: Path, runs: Path, *more: str) -> list[dict[str, Any]]:
    argv = ["--data", str(data), "--sets", "animals", "unlabelled", "--runs", str(runs), "--sentence_encoder", "none"]
    settings = ["--settings", "distill.max_steps=6"]
    monkeypatch.setattr(sys, "argv", ["evaluation_sets", *argv, *settings, *more])
    evaluation_sets.main()
    rows: list[dict[str, Any]] = json.loads((results.FOLDER / "evaluation_sets.json").read_text())["rows"]
    return rows


def without_times(report: Any) -> Any:
    if isinstance(report, dict):
        return {key: without_times(value) for key, value in report.items() if key != "milliseconds"}
    return report


@pytest.mark.slow
def test_every_system_is_trained_once_and_a_rerun_finds_the_same(
    beir_folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (beir_folder.parent / "unlabelled").symlink_to(beir_folder)  # ranked with the models of the animals
    monkeypatch.setitem(RECIPES, "animals", str(recipe))
    monkeypatch.setitem(evaluation_sets.MODELS_OF, "unlabelled", "animals")
    monkeypatch.setitem(evaluation_sets.BI_ENCODERS, "animals", (2, 4, 1e-3))
    monkeypatch.setattr(evaluation_sets, "SEARCHED_WHOLE", 5)  # twelve documents are many
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")

    rows = measured(monkeypatch, beir_folder.parent, tmp_path / "runs")
    assert [(row["set"], row["models_of"], row["seed"]) for row in rows] == [
        ("animals", "animals", 0),
        ("unlabelled", "animals", 0),
    ]
    for row in rows:
        assert row["student"] == {"embedding_dim": 16}
        assert set(row["test"]["systems"]) >= MODELS | {"BM25", "random"}
        assert set(row["whole"]["systems"]) >= MODELS - {TEACHER}
        assert TEACHER not in row["whole"]["systems"] and row["test"]["n"] == row["whole"]["n"] == 24

    stage = json.loads((tmp_path / "runs" / "animals-seed0" / "student" / "stage.json").read_text())
    assert stage["settings"]["max_steps"] == 6

    kept = measured(monkeypatch, beir_folder.parent, tmp_path / "runs")
    assert [without_times(row["test"]) for row in kept] == [without_times(row["test"]) for row in rows]
    again = measured(monkeypatch, beir_folder.parent, tmp_path / "again")
    for part in ("test", "whole"):
        assert [without_times(row[part]["systems"]) for row in again] == [
            without_times(row[part]["systems"]) for row in rows
        ]
    assert len(measured(monkeypatch, beir_folder.parent, tmp_path / "again", "--seeds", "1")) == 4
