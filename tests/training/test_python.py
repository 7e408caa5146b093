"""From task to report by functions: no command line, no folders of stages."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation import RabtrieverDistillationConfig, StudentArguments, distill
from modeling_rabtriever.evaluation import Report, evaluate
from modeling_rabtriever.reranking import (
    BackboneArguments,
    LoraArguments,
    NegativeArguments,
    PromptArguments,
    RerankerTrainingConfig,
    train_reranker,
)
from modeling_rabtriever.tasks import RetrievalTask, load_task

PROMPT = PromptArguments(instruction="Relevant:", max_document_length=16, max_query_length=16)


@pytest.fixture
def backbone(recipe: Path) -> BackboneArguments:
    return BackboneArguments(recipe.parent / "backbone.json")  # type: ignore[arg-type]  # a string for the parser


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_task(beir_folder)


def _config(folder: Path, **settings: Any) -> RerankerTrainingConfig:
    sizes = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "max_steps": 4, "save_steps": 2}
    options = {"objective": "listwise", "activation_checkpointing": False, "report_to": "none", "use_cpu": True}
    return RerankerTrainingConfig(output_dir=str(folder), **{**sizes, **options, **settings})


def test_a_task_becomes_teacher_student_and_report(
    task: RetrievalTask, backbone: BackboneArguments, tmp_path: Path
) -> None:
    config = _config(tmp_path / "teacher", eval_strategy="steps", eval_steps=2)
    teacher = train_reranker(task, config, backbone, PROMPT, NegativeArguments(3))
    assert isinstance(teacher, GenerativeRerankerModel) and not teacher.training
    settings = {"max_steps": 4, "candidates": 4, "rounds": 0, "report_to": "none", "use_cpu": True}
    student_config = RabtrieverDistillationConfig(output_dir=str(tmp_path / "student"), **settings)
    student = distill(teacher, task, student_config, StudentArguments(embedding_dim=16))
    assert isinstance(student, RabtrieverModel)
    report = evaluate([teacher, student], task, max_queries=6)
    assert report.n == 6 and {"random", "BM25", "teacher", "Rabtriever"} <= report.systems.keys()
    student.save_pretrained(tmp_path / "saved")
    again = evaluate([f"mine={tmp_path / 'saved'}"], task, folder=tmp_path / "report", max_queries=6)
    assert again.systems["mine"].metrics["success@1"] == report.systems["Rabtriever"].metrics["success@1"]
    assert Report.from_json(json.loads((tmp_path / "report" / "test.json").read_text())) == again


@pytest.mark.slow
def test_adapters_are_merged_and_an_interrupted_run_goes_on(
    task: RetrievalTask, backbone: BackboneArguments, tmp_path: Path
) -> None:
    common = (backbone, PROMPT, NegativeArguments(3), LoraArguments(use_peft=True, lora_r=2))
    train_reranker(task, _config(tmp_path, max_steps=2, eval_strategy="no"), *common)
    teacher = train_reranker(task, _config(tmp_path, eval_strategy="no", resume_from_checkpoint=True), *common)
    assert (tmp_path / "checkpoint-4").is_dir()
    assert not [name for name in teacher.state_dict() if "lora" in name]


def test_a_student_resumes_on_the_queries_it_began_with(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    def run(steps: int, **settings: Any) -> RabtrieverModel:
        sizes = {"per_device_train_batch_size": 4, "candidates": 4, "rounds": 0, "train_encoder": "none"}
        options = {"report_to": "none", "use_cpu": True, "save_steps": 1, "save_total_limit": 2}
        config = RabtrieverDistillationConfig(str(tmp_path), max_steps=steps, **sizes, **options, **settings)
        return distill(reranker, task, config)

    def refused(steps: int, message: str, **settings: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run(steps, resume_from_checkpoint=True, **settings)

    run(9)
    shutil.rmtree(tmp_path / "checkpoint-9")  # as if the last step had not come
    refused(12, "^max_steps is 12; accepted to resume the run in .*: 9, as it began")
    refused(9, "^seed is 7; accepted to resume .*: 42, as it began", seed=7)
    refused(9, "^label_share is 0.5; accepted to resume .*: 0.0, as it began", label_share=0.5)
    train = task.split("train")
    others = replace(train, queries=[f"please {query}" for query in train.queries])
    task = replace(task, splits={**task.splits, "train": others})
    refused(9, "^digest of the training queries is .*; accepted to resume .*as it began|holds scores of another")


def test_what_does_not_fit_is_refused(task: RetrievalTask, backbone: BackboneArguments, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negatives per positive; accepted: 1 to"):
        train_reranker(task, _config(tmp_path), backbone, PROMPT, NegativeArguments(400))
    with pytest.raises(ValueError, match="no split|accepted: "):
        evaluate([], task, split="exam")
