"""Checkpoints: finished by checksums, refused if a file is missing or changed, passed over if they were cut off."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever.trainers import shared_trainer
from modeling_rabtriever.trainers.checkpoints import (
    CHECKSUMS,
    checkpoint_to_resume,
    finish_checkpoint,
    newest_checkpoint,
)
from tests.test_files import files_of_at_most


def _checkpoint(folder: Path, step: int, processes: int = 1) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (checkpoint / name).write_text(f"{name} of step {step}")
    finish_checkpoint(checkpoint, processes)
    return checkpoint


def test_the_newest_finished_checkpoint_is_resumed(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path) is None
    for step in (20, 100, 120):
        _checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-120" / CHECKSUMS).unlink()  # killed before the last file was written
    (tmp_path / "checkpoint-140").mkdir()
    shutil.copytree(tmp_path / "checkpoint-20", tmp_path / "checkpoint-20-backup")
    assert checkpoint_to_resume(tmp_path) == str(tmp_path / "checkpoint-100")
    assert checkpoint_to_resume(tmp_path, str(tmp_path / "checkpoint-20")) == str(tmp_path / "checkpoint-20")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_missing_or_changed_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    _checkpoint(tmp_path, 10)
    path = _checkpoint(tmp_path, 20) / name
    content = bytearray(path.read_bytes())
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=f"checkpoint-20/{name} is not as it was written"):
            checkpoint_to_resume(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing.*Delete .*checkpoint-20 to resume from an earlier"):
        checkpoint_to_resume(tmp_path)


def test_what_was_never_kept_is_missing_too(tmp_path: Path) -> None:
    """A run with `save_only_model` keeps no optimizer: a resumed run would have another result."""
    checkpoint = _checkpoint(tmp_path, 10)
    (checkpoint / "optimizer.pt").unlink()
    finish_checkpoint(checkpoint, 1)
    with pytest.raises(ValueError, match="optimizer.pt is missing"):
        checkpoint_to_resume(tmp_path)


def test_another_number_of_processes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = _checkpoint(tmp_path, 10)
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    finish_checkpoint(checkpoint, 2)
    with pytest.raises(ValueError, match="rng_state_1.pth is missing"):
        checkpoint_to_resume(tmp_path)
    (checkpoint / "rng_state_1.pth").write_text("of the other one")
    finish_checkpoint(checkpoint, 2)
    assert checkpoint_to_resume(tmp_path) == str(checkpoint)
    assert "written by 2 processes and is read by 1" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"processes": 1}', '{"processes": "1", "files": {}}', "\0"])
def test_broken_checksums_are_refused(tmp_path: Path, content: str) -> None:
    (_checkpoint(tmp_path, 10) / CHECKSUMS).write_text(content)
    with pytest.raises(ValueError, match=f"{CHECKSUMS} is not"):
        checkpoint_to_resume(tmp_path)


def test_a_checkpoint_asked_for_must_be_finished(tmp_path: Path) -> None:
    for given in (str(tmp_path / "checkpoint-3"), "true"):
        with pytest.raises(ValueError, match=f"resume_from_checkpoint is {given}; accepted: a finished checkpoint"):
            checkpoint_to_resume(tmp_path, given)


def test_trainers_finish_their_checkpoints(teacher_trainer: Callable[..., Any], tmp_path: Path) -> None:
    teacher_trainer(max_steps=2, save_strategy="steps", save_steps=1, save_total_limit=None).train()
    for step in (1, 2):
        record = json.loads((tmp_path / "checkpoints" / f"checkpoint-{step}" / CHECKSUMS).read_text())
        assert record["processes"] == 1
        assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= record["files"].keys()


def test_an_older_checkpoint_goes_only_when_the_newer_one_is_finished(
    teacher_trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}

    def killed_at_the_second(folder: Path, processes: int) -> None:
        if folder.name == "checkpoint-2":
            raise KeyboardInterrupt
        finish_checkpoint(folder, processes)

    with monkeypatch.context() as patch:
        patch.setattr(shared_trainer, "finish_checkpoint", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            teacher_trainer(**settings).train()
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-1"
    trainer = teacher_trainer(**settings)
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(tmp_path / "checkpoints"))
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-3"]
    assert trainer.args.save_total_limit == 1


def test_a_full_disk_is_said_and_what_is_there_is_kept(teacher_trainer: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    with files_of_at_most(10_000), pytest.raises(OSError, match="checkpoint-1 cannot be written"):
        teacher_trainer(**settings).train()
    assert newest_checkpoint(tmp_path / "checkpoints") is None
    teacher_trainer(**settings).train()
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"
