"""Settings of students whose encoder trains or is another one: what does not fit, and what they mean together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.training import distill, fresh_student
from modeling_rabtriever.stages.distill import main as distill_main
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import make_trainer
from tests.training.tiny_encoders import write_encoder, write_sentence_transformer

FEW: dict[str, Any] = {
    "candidates": 6, "rounds": 1, "max_steps": 4, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
    "per_device_train_batch_size": 12,
}  # fmt: skip


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_weights_that_train_are_in_full_precision(reranker: GenerativeRerankerModel, tmp_path: Path, how: str) -> None:
    """A bf16 weight of 1 does not notice a step of 0.001."""
    reranker.to(torch.bfloat16)
    frozen, trained = (
        fresh_student(
            reranker, StudentArguments(), RabtrieverDistillationConfig(str(tmp_path), train_encoder=own, **FEW)
        )
        for own in ("none", how)
    )
    assert frozen.backbone.dtype == torch.bfloat16
    assert {weight.dtype for weight in trained.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("encoder", "layers", "other"),
    [
        (None, None, None),
        ("15", 15, None),
        ("org/small", None, "org/small"),
        ("./15", None, "./15"),
        ("²", None, "²"),
        (15, 15, None),
        (Path("org/small"), None, "org/small"),
    ],
)
def test_a_number_means_layers_of_the_teachers_backbone(encoder: Any, layers: int | None, other: str | None) -> None:
    found = StudentArguments(encoder=encoder)
    assert (found.layers, found.other_encoder) == (layers, other)


def test_another_predictor_is_refused() -> None:
    with pytest.raises(ValueError, match="predictor_type is 'mlp'; accepted: hadamard, paper"):
        StudentArguments(predictor_type="mlp")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"encoder": "0"}, "encoder is '0'; accepted: a folder, a Hub id, or 1 layer or more"),
        ({"encoder": "3"}, "encoder is 3 layers; accepted: 1 to 2, those of the teacher's backbone"),
        ({"encoder": "1", "embedding_dim": 0}, "embedding_dim is 0; accepted: a whole number from 1 to 65,536"),
        (
            {"encoder": "small", "predictor_type": "paper"},
            "the teacher's states have 32 numbers; accepted without document_map: 24, the features",
        ),
        (
            {"encoder": "st", "embedding_dim": 8},
            "predictor_type is 'hadamard', embedding_dim is 8; accepted with an encoder that is a retriever: hadamard "
            "and 24",
        ),
        (
            {"encoder": "st", "predictor_type": "paper"},
            "predictor_type is 'paper', embedding_dim is None; accepted with an encoder that is a retriever: hadamard "
            "and 24",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_teacher_is_asked(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, shape: dict[str, Any], message: str
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    write_encoder(tmp_path / "small", "bert")
    write_sentence_transformer(tmp_path / "st", "bert", "mean")
    if (tmp_path / shape["encoder"]).exists():
        shape = {**shape, "encoder": tmp_path / shape["encoder"]}
    settings = {**FEW, **shape, "data": beir_folder, "output_dir": tmp_path / "run", "teacher": tmp_path / "teacher"}
    with pytest.raises(ValueError, match=message):
        distill_main([item for name, value in settings.items() for item in (f"--{name}", str(value))])
    assert not (tmp_path / "run" / "student").exists() and not (tmp_path / "run" / "states").exists()


def test_copies_of_a_relevant_document_are_relevant(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    corpus = beir_folder / "corpus.jsonl"
    first = json.loads(corpus.read_text().splitlines()[0])
    with corpus.open("a") as file:
        file.write(json.dumps({**first, "_id": "copy"}) + "\n")
    task = load_beir(beir_folder)
    assert task.corpus[0] == task.corpus[12]
    trainer = make_trainer(reranker, task, tmp_path, label_share=0.5)
    relevant = trainer._labels.relevant_in(torch.tensor([0, 1]), torch.tensor([0, 1, 2, 12]))
    assert relevant.tolist() == [[True, False, False, True], [False, True, False, False]]


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
