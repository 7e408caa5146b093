"""The command that distils: what it leaves, and what its record says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.stages import distill
from modeling_rabtriever.tasks.beir import load_beir
from modeling_rabtriever.trainers.stage_folder import StageFolder


@pytest.fixture
def command(reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path) -> list[str]:
    reranker.save_pretrained(tmp_path / "teacher")
    return flags(
        data=beir_folder, output_dir=tmp_path / "run", teacher=tmp_path / "teacher", embedding_dim=16, candidates=4,
        rounds=0, max_steps=2, save_strategy="no", eval_strategy="no",
    )  # fmt: skip


def flags(**settings: Any) -> list[str]:
    return [item for name, value in settings.items() for item in (f"--{name}", str(value))]


def test_a_run_that_ended_before_its_model_was_saved(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    command = [*command, *flags(save_strategy="steps", save_steps=1, logging_steps=1)]
    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            distill.main(command)
    folder = distill.main(command).parent
    record = json.loads((folder / "stage.json").read_text())
    assert record["teacher_pairs"] == 4 * 2 * 8 and "seconds" not in record  # this process took few of them
    steps = [record["step"] for record in json.loads((folder / "log.json").read_text()) if "loss" in record]
    assert steps == [1, 2]


@pytest.mark.parametrize("how", ["none", "lora", "full"])
def test_a_student_from_the_command_line(
    command: list[str], reranker: GenerativeRerankerModel, beir_folder: Path, how: str
) -> None:
    folder = distill.main([*command, *flags(train_encoder=how)])
    student = AutoModel.from_pretrained(folder)
    assert student.encode_query("a lost dog").shape == (1, 16)
    record = json.loads((folder.parent / "stage.json").read_text())
    assert record["done"] and record["embedding_dim"] == 16
    assert record["teacher_pairs"] == 4 * 2 * 8 < 4 * len(load_beir(beir_folder).split("train"))  # the steps' queries
    before, after = reranker.backbone.base_model.state_dict(), student.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in after) == (how == "none")


def test_encoder_1_keeps_one_layer(command: list[str], reranker: GenerativeRerankerModel) -> None:
    student = AutoModel.from_pretrained(distill.main([*command, *flags(encoder=1, train_encoder="none")]))
    assert student.config.text_config.num_hidden_layers == 1
    whole = reranker.backbone.base_model.state_dict()
    kept = student.backbone.state_dict()
    assert {name for name in whole if "layers.1." in name} == whole.keys() - kept.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in kept.items())


def test_teacher_and_features_are_read_once(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run on the same teacher and queries finds what the first one kept."""
    frozen = [*command, *flags(train_encoder="none")]
    first = AutoModel.from_pretrained(distill.main(frozen))
    monkeypatch.setattr(GenerativeRerankerModel, "map_pairs", lambda *_, **__: pytest.fail("the teacher ran again"))
    monkeypatch.setattr(
        "modeling_rabtriever.distillation.features.read_features", lambda *_: pytest.fail("texts were read again")
    )
    again = distill.main([*frozen, *flags(output_dir=tmp_path / "again", states=tmp_path / "run" / "states")])
    torch.testing.assert_close(AutoModel.from_pretrained(again).state_dict(), first.state_dict())


@pytest.mark.parametrize("gone", ["num_heads", "feature_layers", "shared_dim", "query_anchors", "initial_candidates"])
def test_options_of_before_version_0_1_are_refused_by_name(command: list[str], gone: str) -> None:
    with pytest.raises(ValueError, match=f"unknown arguments for distill: --{gone} 2; accepted: what python -m"):
        distill.main([*command, f"--{gone}", "2"])
