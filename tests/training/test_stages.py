"""Stage folders: skip what is done, resume what was cut off, refuse to mix settings."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from modeling_rabtriever.files import write_json, write_text
from modeling_rabtriever.trainers.checkpoints import CHECKSUMS, finish_checkpoint
from modeling_rabtriever.trainers.run_lock import only_run
from modeling_rabtriever.trainers.stage_folder import StageFolder, model_digest


@dataclass
class _Settings:
    rate: float = 0.1
    logging_steps: int = 10


def _stage(
    folder: Path, rate: float = 0.1, task: str = "t", overwrite: bool = False, logging_steps: int = 10
) -> StageFolder:
    return StageFolder(folder, (_Settings(rate, logging_steps),), {"task": task}, overwrite)


def test_a_finished_stage_is_done(tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    assert not stage.done
    assert not _stage(tmp_path).done  # started is not finished
    stage.finish(pairs=7)
    assert _stage(tmp_path).done
    assert json.loads((tmp_path / "stage.json").read_text())["pairs"] == 7
    assert _stage(tmp_path, logging_steps=99).done  # how a run is watched does not change what comes out


def test_other_settings_or_inputs_are_refused_and_named(tmp_path: Path) -> None:
    _stage(tmp_path).finish()
    with pytest.raises(ValueError, match=r"rate \(0.1 there, 0.2 now\).*--overwrite true"):
        _stage(tmp_path, rate=0.2)
    with pytest.raises(ValueError, match=r"task \('t' there, 'u' now\)"):
        _stage(tmp_path, task="u")


def test_overwrite_starts_anew_once_nothing_can_fail_any_more(tmp_path: Path) -> None:
    _stage(tmp_path).finish()
    (tmp_path / "model").mkdir()
    stage = _stage(tmp_path, rate=0.2, overwrite=True)
    assert not stage.done and stage.model.exists() and _stage(tmp_path).done
    stage.start()
    assert not stage.model.exists() and not _stage(tmp_path, rate=0.2).done


def test_a_stage_that_fails_before_it_starts_leaves_nothing(tmp_path: Path) -> None:
    _stage(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_a_folder_where_another_run_is_at_work_is_refused(tmp_path: Path, rate: float) -> None:
    folder = tmp_path / "student"
    _stage(folder).start()
    other = FileLock(tmp_path / ".student.lock")  # as another process would hold it
    stage = _stage(folder, rate, overwrite=True)
    for begin in (stage.claim, stage.start):
        with other, pytest.raises(ValueError, match="another run works in .*student now; accepted: another folder"):
            begin()
    assert json.loads((folder / "stage.json").read_text())["settings"]["rate"] == 0.1
    stage.claim()
    stage.start()
    stage.finish()
    with other:  # free again
        assert _stage(folder, rate).done


def test_a_stage_that_another_run_finished_meanwhile_is_not_done_twice(tmp_path: Path) -> None:
    stage, late = _stage(tmp_path / "student"), _stage(tmp_path / "student")
    stage.start()
    stage.finish(pairs=7)
    with pytest.raises(ValueError, match="another run has just finished .*student with the same settings; accepted"):
        late.start()
    assert json.loads((tmp_path / "student" / "stage.json").read_text())["pairs"] == 7


def test_a_stage_that_failed_runs_again_in_the_same_process(tmp_path: Path) -> None:
    kept = _stage(tmp_path / "student")  # as the traceback of a notebook keeps it
    kept.start()
    _stage(tmp_path / "student").start()


def test_two_runs_from_python_do_not_share_a_folder(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match="output_dir: another run works in")
    with FileLock(tmp_path / ".run.lock"), refused, only_run(tmp_path):
        raise AssertionError
    with only_run(tmp_path):
        pass


@pytest.mark.slow
def test_a_killed_run_leaves_its_folder_free(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from modeling_rabtriever.trainers.stage_folder import StageFolder
stage = StageFolder(Path(sys.argv[1]), (), {}, False)
stage.start()
print("started", flush=True)
time.sleep(600)
"""
    folder = tmp_path / "student"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "started\n"
            stage = StageFolder(folder, (), {}, False)
            with pytest.raises(ValueError, match="another run works in"):
                stage.start()
        finally:
            other.kill()
    stage.start()
    stage.finish()


def test_a_started_stage_without_a_checkpoint_stands_in_nobodys_way(tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    stage.start()
    write_text(stage.checkpoints / "candidates-000.safetensors", "of a run that failed in its first step")
    other = _stage(tmp_path, rate=0.2)
    other.start()
    assert not stage.checkpoints.exists()
    for path in (stage.checkpoints / "checkpoint-5" / CHECKSUMS, tmp_path / "queries.jsonl"):
        write_text(path, "{}")
        with pytest.raises(ValueError, match=r"rate \(0.2 there, 0.1 now\)"):
            _stage(tmp_path)
        path.unlink()


def test_a_record_nobody_can_read_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"settings": {}}'):
        write_text(tmp_path / "stage.json", text)
        with pytest.raises(ValueError, match=r"stage.json is not a record of a stage .*; accepted: the file as a"):
            _stage(tmp_path)


def test_the_last_whole_checkpoint_is_resumed(tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    assert stage.last_checkpoint() is None
    for step in (20, 100):
        for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
            write_text(stage.checkpoints / f"checkpoint-{step}" / name, "{}")
        finish_checkpoint(stage.checkpoints / f"checkpoint-{step}", processes=1)
    (stage.checkpoints / "checkpoint-120").mkdir()  # killed while this one was written
    assert stage.last_checkpoint() == str(stage.checkpoints / "checkpoint-100")
    stage.finish()
    assert not stage.checkpoints.exists()


def test_model_digest_follows_weights_and_prompt(tmp_path: Path) -> None:
    assert model_digest("org/name") == "org/name"
    (tmp_path / "model.safetensors").write_bytes(b"one")
    write_json(tmp_path / "processor_config.json", {"instruction": "a"})
    first = model_digest(str(tmp_path))
    write_text(tmp_path / "README.md", "a card is no part of the model")
    assert model_digest(str(tmp_path)) == first
    write_json(tmp_path / "processor_config.json", {"instruction": "b"})
    assert model_digest(str(tmp_path)) != first


def test_writes_are_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]


def test_weights_in_folders_inside_tell_models_apart(tmp_path: Path) -> None:
    """sentence-transformers keeps the weights of later modules in folders of their own."""
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "modules.json").write_text("[]")
    digests = set()
    for content in (b"one", b"two"):
        (tmp_path / "2_Dense" / "model.safetensors").write_bytes(content)
        digests.add(model_digest(str(tmp_path)))
    assert len(digests) == 2
