"""The optional first stage: a plain language model that the teacher starts from."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_rabtriever import RabtrieverProcessor
from modeling_rabtriever.stages import pipeline, pretrain, train_reranker
from modeling_rabtriever.stages.pretrain import prompt_dataset
from modeling_rabtriever.tasks.beir import load_beir


@pytest.fixture
def recipe(beir_folder: Path, tmp_path: Path) -> Path:
    backbone = tmp_path / "backbone.json"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["num_key_value_heads"] = 2
    backbone.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400, "max_position_embeddings": 64, **sizes}))
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    training = {"per_device_train_batch_size": 12, "learning_rate": 1e-2, "logging_steps": 5, "seed": 1}
    teacher = {"negatives_per_positive": 3, "per_device_eval_batch_size": 12, "max_steps": 2, "dev_groups": 6}
    content = {
        "data": str(beir_folder),
        "output_dir": str(tmp_path / "run"),
        "pretrain": {"model_name_or_path": str(backbone), "max_steps": 30, "save_steps": 10, **prompt, **training},
        "train_reranker": {**teacher, **prompt, **training},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_teacher_starts_from_the_pretrained_backbone(recipe: Path, tmp_path: Path, capsys: Any) -> None:
    folder = pretrain.main(["--config", str(recipe)])
    losses = [record["loss"] for record in json.loads((folder.parent / "log.json").read_text()) if "loss" in record]
    assert losses[-1] < 0.6 * losses[0]
    backbone, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert backbone.config.vocab_size == len(tokenizer)

    seen = []
    original = train_reranker.make_trainer

    def watched(reranker: Any, *others: Any) -> Any:
        seen.append(reranker)
        weights = reranker.backbone.get_input_embeddings().weight
        assert weights.equal(backbone.get_input_embeddings().weight)
        return original(reranker, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_reranker, "make_trainer", watched)
        train_reranker.main(["--config", str(recipe)])
    # The tokenizer came through a folder, but reads as the one that was trained.
    texts = load_beir(recipe.parent / "animals").corpus
    again = RabtrieverProcessor(tokenizer, instruction="Relevant:", max_document_length=16, max_query_length=16)
    assert seen[0].processor.document_ids(texts) == again.document_ids(texts)
    assert max(map(max, again.document_ids(texts))) < len(tokenizer)

    pretrain.main(["--config", str(recipe)])
    assert "backbone: already done" in capsys.readouterr().out


def test_rows_are_relevant_pairs(beir_folder: Path, processor: RabtrieverProcessor) -> None:
    task = load_beir(beir_folder)
    dev = task.split("dev")
    rows = prompt_dataset(task, dev, processor)
    assert len(rows) == 12
    expected = processor.document_ids(task.corpus[3])[0] + processor.query_ids(dev.queries[3])[0]
    assert rows[3] == {"input_ids": expected, "labels": expected}


def test_without_pretraining_the_backbone_must_be_named(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone/model is missing; accepted: run python -m training.pretrain first"):
        train_reranker.main(["--config", str(recipe)])
    with pytest.raises(ValueError, match="accepted: a Hub id, a folder, or a .json"):
        pretrain.main(["--data", str(tmp_path / "animals"), "--output_dir", str(tmp_path / "x")])


def test_pipeline_pretrains_only_with_a_section(recipe: Path, tmp_path: Path) -> None:
    called = []
    with pytest.MonkeyPatch.context() as patch:
        for name, module in pipeline._STAGES.items():
            patch.setattr(module, "main", lambda _, name=name: called.append(name) or recipe)
        few = ["--distill.candidates", "4", "--distill.rounds", "0"]
        pipeline.main(["--config", str(recipe), *few])
        content = yaml.safe_load(recipe.read_text())
        content["train_reranker"]["model_name_or_path"] = content.pop("pretrain")["model_name_or_path"]
        recipe.write_text(yaml.safe_dump(content))
        pipeline.main(["--config", str(recipe), *few])
    stages = ["train_reranker", "distill", "evaluate"]
    assert called == ["pretrain", *stages, *stages]
