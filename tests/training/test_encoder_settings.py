"""Settings of students whose encoder trains or is another one: what excludes what, and what they mean together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.encoders import student_of, teachers_encoder
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.training import distill, fresh_student
from modeling_rabtriever.stages.distill import main as distill_main
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import make_trainer
from tests.training.tiny_encoders import write_encoder, write_sentence_transformer

FEW: dict[str, Any] = {
    "initial_candidates": 4, "refresh_rounds": 1, "refresh_candidates": 2, "max_steps": 4, "use_cpu": True,
    "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 12,
}  # fmt: skip


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_weights_that_train_are_in_full_precision(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, how: str
) -> None:
    """A bf16 weight of 1 does not notice a step of 0.001."""
    student = student_of(teachers_encoder(reranker.to(torch.bfloat16)), reranker)
    assert student.backbone.dtype == torch.bfloat16
    config = RabtrieverDistillationConfig(str(tmp_path), train_encoder=how, **FEW)
    student = fresh_student(reranker, StudentArguments(), config, task, task.split("train"))
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"encoder": "small", "encoder_layers": 1}, "encoder_layers is 1 and encoder '.*small'; accepted: one of them"),
        ({"encoder": "small", "document_anchors": 2}, "document_anchors is 2; accepted: 0 with encoder or encoder_lay"),
        ({"encoder_layers": 1, "document_anchors": 2}, "document_anchors is 2; accepted: 0 with encoder or encoder_l"),
        ({"encoder_layers": 3}, "encoder_layers is 3; accepted: 1 to 2, the layers of the teacher's backbone"),
        ({"encoder_layers": 1, "feature_layers": 2}, "feature_layers holds 2; accepted: whole numbers -2 to 1"),
        ({"encoder": "small", "feature_layers": 3}, "feature_layers holds 3; accepted: whole numbers -3 to 2"),
        ({"encoder": "st", "shared_dim": 4}, "shared_dim is 4; accepted for a start from a retriever: 0"),
    ],
)
def test_what_excludes_what_is_said_before_the_teacher_is_asked(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, shape: dict[str, Any], message: str
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    write_encoder(tmp_path / "small", "bert")
    write_sentence_transformer(tmp_path / "st", "bert", "mean")
    if "encoder" in shape:
        shape = {**shape, "encoder": tmp_path / shape["encoder"]}
    settings = {**FEW, **shape, "data": beir_folder, "output_dir": tmp_path / "run", "teacher": tmp_path / "teacher"}
    with pytest.raises(ValueError, match=message):
        distill_main([item for name, value in settings.items() for item in (f"--{name}", str(value))])
    assert not (tmp_path / "run").exists()


def test_anchors_are_read_by_the_encoder_that_reads_behind_them(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path / "small", "bert")
    shape = StudentArguments(encoder=str(folder), query_anchors=1)
    config = RabtrieverDistillationConfig(str(tmp_path), **FEW)
    student = fresh_student(reranker, shape, config, task, task.split("train"))
    (anchor,) = student.config.query_anchors
    assert anchor in student.processor.document_ids(task.corpus)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_lora_rank": 0}, "encoder_lora_rank is 0; accepted: 1 or more"),
        (
            {"in_batch_documents": True, "listwise_form": "forward", "listwise_weight": 0.0},
            "in_batch_documents is true with listwise_weight 0; accepted: a weight above 0",
        ),
    ],
)
def test_settings_without_an_effect_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverDistillationConfig(str(tmp_path), **settings)


def test_copies_of_a_relevant_document_are_no_irrelevant_ones(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    corpus = beir_folder / "corpus.jsonl"
    first = json.loads(corpus.read_text().splitlines()[0])
    with corpus.open("a") as file:
        file.write(json.dumps({**first, "_id": "copy"}) + "\n")
    task = load_beir(beir_folder)
    assert task.corpus[0] == task.corpus[12]
    trainer = make_trainer(reranker, task, tmp_path, listwise_form="forward", in_batch_documents=True)
    rows, candidates = torch.tensor([0, 1]), torch.tensor([[0, 2], [1, 12]])
    known = trainer._known(rows, candidates, torch.tensor([0, 1, 2, 12]))
    assert known.tolist() == [[True, False, True, True], [True, True, False, True]]


def test_a_run_goes_on_if_there_is_something_to_go_on_from(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    settings = {**FEW, "train_encoder": "full", "save_strategy": "steps", "save_steps": 2}
    whole = distill(reranker, task, RabtrieverDistillationConfig(str(tmp_path / "whole"), **settings))
    config = RabtrieverDistillationConfig(str(tmp_path / "whole"), **settings, resume_from_checkpoint=True)
    (tmp_path / "whole" / "checkpoint-4" / "checksums.json").unlink()  # cut off while it was written
    again = distill(reranker, task, config)
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), atol=1e-6, rtol=1e-5)
    fresh = RabtrieverDistillationConfig(str(tmp_path / "fresh"), **settings, resume_from_checkpoint=True)
    torch.testing.assert_close(distill(reranker, task, fresh).state_dict(), whole.state_dict(), atol=1e-6, rtol=1e-5)
