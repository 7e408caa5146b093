"""A teacher's trainer on the animals, for the tests of its losses, and a recipe of the whole pipeline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.reranking.pairs import pair_dataset
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from modeling_rabtriever.tasks.beir import load_beir

GROUPS = [(0, [0, 5, 6, 7]), (1, [1, 5, 6, 7]), (2, [2, 5, 6, 7]), (3, [3, 0, 1, 2])]


@pytest.fixture
def teacher_trainer(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> Callable[..., RerankerTrainer]:
    """A trainer of the `reranker` of the test, over `GROUPS`."""

    def make(**settings: Any) -> RerankerTrainer:
        task = load_beir(beir_folder)
        peft_config, eval_dataset = settings.pop("peft_config", None), settings.pop("eval_dataset", None)
        config = RerankerTrainingConfig(
            output_dir=str(tmp_path / "checkpoints"),
            train_sampling_strategy="sequential",
            activation_checkpointing=False,
            report_to="none",
            use_cpu=True,
            **{"per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "max_steps": 1, **settings},
        )
        return RerankerTrainer(
            group_size=4,
            reranker=reranker,
            args=config,
            train_dataset=pair_dataset(GROUPS, task.split("train"), task.corpus, reranker.processor),
            eval_dataset=eval_dataset,
            peft_config=peft_config,
        )

    return make


@pytest.fixture
def recipe(beir_folder: Path, tmp_path: Path) -> Path:
    """Teacher, student and evaluation in seconds."""
    backbone = tmp_path / "backbone.json"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.1}
    backbone.write_text(json.dumps({"model_type": "qwen3", "vocab_size": 400, "head_dim": 8, **sizes}))
    shared = {"learning_rate": 5e-3, "logging_steps": 5, "eval_strategy": "steps", "eval_steps": 10, "save_steps": 5}
    content = {
        "data": str(beir_folder),
        "output_dir": str(tmp_path / "run"),
        "seed": 1,
        "train_reranker": {
            "model_name_or_path": str(backbone),
            "instruction": "Relevant:",
            "max_document_length": 16,
            "max_query_length": 16,
            "objective": "listwise",
            "negatives_per_positive": 3,
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 16,
            "dev_groups": 8,
            "max_steps": 20,
            "activation_checkpointing": False,
            **shared,
        },
        "distill": {
            "embedding_dim": 16,
            "train_encoder": "none",
            "candidates": 6,
            "rounds": 1,
            "per_device_train_batch_size": 12,
            "max_steps": 20,
            **shared,
        },
        "evaluate": {"splits": ["test"]},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
