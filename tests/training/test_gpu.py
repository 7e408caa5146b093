"""Distillation and evaluation on an accelerator, where there is one: the same student, and nothing left on the CPU."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.machine import fastest_device, mapped_on
from modeling_rabtriever.stages import distill, evaluate
from modeling_rabtriever.tasks.beir import load_beir
from tests.training.students import make_trainer

needs_accelerator = pytest.mark.skipif(fastest_device().type == "cpu", reason="this machine has no accelerator")


def test_rows_are_mapped_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling_rabtriever.machine._ROWS", 3)
    rows, seen = torch.arange(14.0).view(7, 2), list[int]()

    def double(block: torch.Tensor) -> torch.Tensor:
        seen.append(len(block))
        return 2 * block

    assert torch.equal(mapped_on(torch.device("cpu"), double, rows), 2 * rows)
    assert seen == [3, 3, 1]


@needs_accelerator
@pytest.mark.parametrize("use_cpu", [True, False])
def test_a_trainer_takes_a_teacher_that_is_on_the_accelerator(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, use_cpu: bool
) -> None:
    place = "cpu" if use_cpu else fastest_device()
    trainer = make_trainer(reranker.to(place), load_beir(beir_folder), tmp_path, use_cpu=use_cpu)
    trainer.train()
    assert {weights.device.type for weights in trainer.model.parameters()} == {trainer.args.device.type}
    assert trainer.teacher_pairs == 36 * 8


@needs_accelerator
def test_the_accelerators_student_is_the_cpus(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    logs, scores = [], []
    for use_cpu in (True, False):
        output = tmp_path / str(use_cpu)
        flags = {"data": beir_folder, "output_dir": output, "teacher": tmp_path / "teacher", "embedding_dim": 16}
        flags |= {"candidates": 6, "rounds": 0, "max_steps": 8, "logging_steps": 1, "bf16": False}
        flags |= {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "no", "use_cpu": use_cpu}
        folder = distill.main([item for name, value in flags.items() for item in (f"--{name}", str(value))])
        log = json.loads((folder.parent / "log.json").read_text())
        logs.append([entry["loss"] for entry in log if "loss" in entry])
        report = evaluate.main(
            [
                *("--task", str(beir_folder), "--output_dir", str(output), "--sentence_encoder", "nobody/nothing"),
                *("--model", str(tmp_path / "teacher"), str(folder)),
            ]
        )
        scores.append(load_file(report / "test-scores.safetensors"))
    assert len(logs[0]) == 8 and logs[1] == pytest.approx(logs[0], rel=1e-3)
    for name in ("teacher", "Rabtriever"):
        assert torch.allclose(scores[0][name], scores[1][name], rtol=1e-3, atol=1e-3)
