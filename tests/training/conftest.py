"""A teacher's trainer on the animals, a recipe of the whole pipeline, and a run with a teacher behind a server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.reranking.pairs import pair_dataset
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from modeling_rabtriever.served import teacher as served_teacher
from modeling_rabtriever.tasks.beir import load_beir
from tests.served.completion_server import CompletionServer
from tests.training.tiny_encoders import write_sentence_transformer

THINGS = ("sponge", "lamp", "ladder", "doctor")
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


@pytest.fixture
def things(tmp_path: Path) -> Path:
    """Twelve documents and three queries for each, of words that the tiny encoders know."""
    documents = [f"{verb} {thing}" for verb in ("bring the", "bring a", "call a") for thing in THINGS]
    queries = [
        f"{words} {document}" for words in ("I cannot reach", "it is dark", "my drink") for document in documents
    ]
    folder = tmp_path / "things"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", [*queries, *reversed(documents)])):
        lines = [json.dumps({"_id": f"{name}{row}", "text": text}) for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for split, rows in (("train", range(36)), ("test", range(36, 48))):
        lines = [f"queries{row}\tcorpus{row % 12 if row < 36 else 47 - row}\t1" for row in rows]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"{line}\n" for line in lines)
        )
    return folder


@pytest.fixture
def served_settings(
    server: CompletionServer,
    reranker: GenerativeRerankerModel,
    things: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """A short run. Nothing is drawn, and rounding stays rounding, which Adam would blow up to whole steps."""
    reranker.save_pretrained(tmp_path / "teacher")
    monkeypatch.setattr(served_teacher, "TOP", 400)  # every answer is among them, so a pair takes one request
    server.top = 400
    return {
        "data": things, "output_dir": tmp_path / "run", "teacher": server.url,
        "model_name_or_path": tmp_path / "teacher", "candidates": 6, "rounds": 0, "temperature": 0.5,
        "encoder": write_sentence_transformer(tmp_path / "encoder", "bert", "mean"), "max_steps": 10,
        "per_device_train_batch_size": 12, "learning_rate": 5e-3, "optim": "sgd", "use_cpu": True, "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip


def flags(**settings: Any) -> list[str]:
    """Settings as a command line."""
    return [item for name, value in settings.items() for item in (f"--{name}", str(value))]
