"""The folder of one stage of a run: its settings, whether it is done, and where to resume.

<output_dir>/<stage>/stage.json      settings, inputs, done or not
<output_dir>/<stage>/model/          the result: a folder AutoModel loads
<output_dir>/<stage>/checkpoints/    while training; removed at the end
"""

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..errors import refusing
from ..files import read_record, write_json
from .checkpoints import CHECKSUMS, checkpoint_to_resume
from .processes import on_main

# Settings that change how a run is watched, stored or split over devices, not what comes out of it.
_NOT_RESULTS = (
    "output_dir",
    "overwrite",
    "logging_",
    "log_",
    "save_",
    "report_to",
    "run_name",
    "project",
    "trackio_",
    "disable_tqdm",
    "hub_",
    "push_to_hub",
    "resume_from_checkpoint",
    "dataloader_",
    "local_rank",
    "use_cpu",
    "ddp_",
    "eval_on_start",
)


class StageFolder:
    """One stage's folder. A finished stage with the same settings and inputs is skipped, an unfinished one resumed.

    Nothing is written or removed before `start`, so a stage whose settings turn out to be unusable leaves the folder as
    it was. A run that was started and left nothing to go on from stands in nobody's way.

    Args:
        folder: the stage's folder.
        settings: the dataclasses the stage was called with.
        inputs: name -> digest of what the stage reads (task, earlier stage).
        overwrite: start anew where the folder holds a run with other settings or inputs.

    Raises:
        ValueError: the folder holds such a run and `overwrite` is false.
    """

    def __init__(self, folder: Path, settings: tuple[Any, ...], inputs: dict[str, str], overwrite: bool) -> None:
        self.folder = folder
        self._record = {"settings": _settings(settings), "inputs": inputs}
        self._started = time.monotonic()
        self._stale, self.done = on_main(lambda: self._compared(overwrite))

    def _compared(self, overwrite: bool) -> tuple[bool, bool]:
        """Whether the folder is of another run, which makes room, and whether this run is done."""
        found, wanted = self._found(), self._record
        stale = found is not None and {name: found[name] for name in wanted} != wanted
        if found is not None and stale and not overwrite and (found["done"] or self._has_results()):
            raise ValueError(
                f"{self.folder} holds a run with other {_differences(found, wanted)}; accepted: another "
                "output_dir, or --overwrite true, which replaces it"
            )
        return stale, found is not None and not stale and bool(found["done"])

    def start(self) -> None:
        """Makes the folder this run's; call it when nothing is left to check. What another run left is removed."""
        on_main(self._start)
        self._stale = False

    def _start(self) -> None:
        if self._stale:
            shutil.rmtree(self.folder)
        if self._found() is None:
            write_json(self._path, {**self._record, "done": False})

    @property
    def model(self) -> Path:
        """Where the stage's model goes."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def log(self) -> Path:
        """Where the trainer's log is kept: a list of records, one per logging step."""
        return self.folder / "log.json"

    @property
    def _path(self) -> Path:
        return self.folder / "stage.json"

    def last_checkpoint(self, given: str | None = None) -> str | None:
        """The checkpoint to go on from, `given` or the newest finished one: as `checkpoint_to_resume`."""
        return checkpoint_to_resume(self.checkpoints, given)

    def _found(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        with refusing(f"{self._path} is no record of a stage", "the file as a stage wrote it, or none"):
            found: dict[str, Any] = json.loads(self._path.read_text())
            return {name: found[name] for name in (*self._record, "done")}

    def _has_results(self) -> bool:
        """Whether there is more than a record: a finished checkpoint, a model, a log."""
        others = (path for path in self.folder.rglob("*") if path.is_file() and self.checkpoints not in path.parents)
        finished_checkpoints = any(self.checkpoints.glob(f"checkpoint-*/{CHECKSUMS}"))
        return finished_checkpoints or any(path != self._path for path in others)

    def finish(self, **result: Any) -> None:
        """Marks the stage as done, with `result` kept beside the settings."""
        seconds = round(time.monotonic() - self._started, 1)

        def close() -> None:
            write_json(self._path, {**self._record, "done": True, "seconds": seconds, **result})
            shutil.rmtree(self.checkpoints, ignore_errors=True)

        on_main(close)


def finished(folder: Path) -> bool:
    """Whether a stage has been finished there."""
    return bool(read_record(folder / "stage.json").get("done"))


def earlier_model(given: str | None, output_dir: str, stage: str, remedy: str) -> str:
    """The model a stage starts from: the one given, or what an earlier stage of the run left in `<stage>/model`.

    Raises:
        ValueError: none is given and the earlier stage has not been run; `remedy` says what to do.
    """
    path = given or str(Path(output_dir) / stage / "model")
    if given is None and not Path(path).is_dir():
        raise ValueError(f"{path} is missing; accepted: {remedy}")
    return path


def model_digest(name_or_path: str) -> str:
    """The identity of a model a stage reads: a digest of a folder's weights and prompt, or the Hub id as it is.

    Folders inside count too: sentence-transformers keeps the weights of later modules in them.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return name_or_path
    digest = hashlib.sha256()
    names = ("*.safetensors", "*config.json", "tokenizer.json")
    for path in sorted(path for name in names for path in folder.rglob(name)):
        with path.open("rb") as file:
            digest.update(path.relative_to(folder).as_posix().encode())
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """The identity of a file a stage reads."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _settings(arguments: tuple[Any, ...]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for argument in arguments:
        values = argument.to_dict() if isinstance(argument, TrainingArguments) else dataclasses.asdict(argument)
        merged.update({name: value for name, value in values.items() if not name.startswith(_NOT_RESULTS)})
    return json.loads(json.dumps(merged, default=str))


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    changes = [
        f"{name} ({found[part].get(name)!r} there, {values.get(name)!r} now)"
        for part, values in wanted.items()
        for name in sorted({*values, *found[part]})
        if values.get(name) != found[part].get(name)
    ]
    return f"settings: {', '.join(changes[:5])}" + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
