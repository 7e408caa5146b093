"""Checkpoints with checksums, which are verified before a run resumes.

The list of checksums is written last. A checkpoint without it was interrupted while being written and is skipped. A
checkpoint with it must be unchanged.
"""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import read_record, write_json
from .processes import on_main, process_count, say

if TYPE_CHECKING:
    from transformers import TrainingArguments

CHECKSUMS = "checksums.json"
_BLOCK = 1 << 24


def checkpoint_to_resume(folder: Path, given: str | None = None) -> str | None:
    """The checkpoint that a run resumes from, `given` or the newest one in the folder; `None` if there is none.

    Raises:
        ValueError: a file of the checkpoint is missing or is not as it was written, or `given` was never finished.
    """
    return on_main(lambda: _checked(folder, given))


def configured_checkpoint(config: "TrainingArguments") -> str | None:
    """The checkpoint in `config.output_dir` to resume from; `None` if there is none or the run is not to resume."""
    given: Any = config.resume_from_checkpoint
    if not given:
        return None
    return checkpoint_to_resume(Path(str(config.output_dir)), None if given is True else given)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest finished checkpoint."""
    finished = [path.parent for path in folder.glob(f"checkpoint-*/{CHECKSUMS}")]
    numbers = [(path.name.removeprefix("checkpoint-"), path) for path in finished]
    by_step = {int(number): path for number, path in numbers if number.isdecimal()}  # a copy may have any name
    return by_step[max(by_step)] if by_step else None


def finish_checkpoint(folder: Path, processes: int) -> None:
    """Finishes a checkpoint by writing the checksums of its files; `processes` is how many share the run."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    record = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    write_json(folder / CHECKSUMS, {"processes": processes, "files": record})


def _checked(folder: Path, given: str | None) -> str | None:
    checkpoint = newest_checkpoint(folder) if given is None else Path(given)
    if checkpoint is None:
        return None
    from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME  # takes seconds

    needed = (TRAINER_STATE_NAME, OPTIMIZER_NAME, SCHEDULER_NAME)
    record = read_record(checkpoint / CHECKSUMS, processes=int, files=dict)
    if not record:
        raise ValueError(f"resume_from_checkpoint is {given}; accepted: a finished checkpoint, with its {CHECKSUMS}")
    processes = record["processes"]
    draws = ["rng_state.pth"] if processes == 1 else [f"rng_state_{index}.pth" for index in range(processes)]
    for name, checksum in (dict.fromkeys([*needed, *draws]) | record["files"]).items():
        path = checkpoint / name
        fault = None
        if not path.is_file():
            fault = "is missing"
        elif checksum is not None and _checksum(path) != checksum:
            fault = "is not as it was written"
        if fault is not None:
            raise ValueError(
                f"{path} {fault}, so the run cannot resume with the same result; accepted: the file as it was written. "
                f"Delete {checkpoint} to resume from an earlier checkpoint, or from the beginning if there is none"
            )
    if processes != process_count():
        say(f"{checkpoint} was written by {processes} processes and is read by {process_count()}: dropout will differ")
    return str(checkpoint)


def _checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
