"""The folder of one stage of a run: settings, state, and checkpoints to resume from.

<output_dir>/<stage>/stage.json      settings, inputs, whether the stage is done
<output_dir>/<stage>/model/          the result: a folder AutoModel loads
<output_dir>/<stage>/checkpoints/    during training; deleted at the end
<output_dir>/.<stage>.lock           held by the run that works in the folder
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import refusing
from ..files import read_record, write_json, writing
from .checkpoints import CHECKSUMS, checkpoint_to_resume
from .processes import on_main
from .run_lock import run_lock, take

if TYPE_CHECKING:
    from transformers import Trainer  # takes seconds, and evaluation has none

# Settings that change how a run is logged, stored or divided over devices, but not its result.
_NOT_RESULTS = (
    "output_dir", "overwrite", "logging_", "log_", "save_", "report_to", "run_name", "project", "trackio_",
    "disable_tqdm", "hub_", "push_to_hub", "resume_from_checkpoint", "dataloader_", "local_rank", "use_cpu", "ddp_",
    "eval_on_start", "dry_run", "requests_in_flight",
)  # fmt: skip


class StageFolder:
    """The folder of a stage. A finished stage with the same settings and inputs is skipped, an unfinished one resumes.

    Nothing is written or deleted before `start`, so a stage with unusable settings leaves the folder unchanged. A run
    that started but left no results is replaced without asking. From `claim` or `start` to `finish`, the folder belongs
    to one run; another one is refused.

    `settings` are the dataclasses of the stage, `inputs` the fingerprints of its inputs (task, earlier stage) by name.

    Raises:
        ValueError: the folder holds such a run and `overwrite` is false.
    """

    def __init__(self, folder: Path, settings: tuple[Any, ...], inputs: dict[str, str], overwrite: bool) -> None:
        self.folder = folder
        self._record = {"settings": _settings(settings), "inputs": inputs}
        self._overwrite = overwrite
        self._lock = run_lock(folder.with_name(f".{folder.name}.lock"))  # beside the folder, which `start` may delete
        _, self.done = on_main(self._compared)

    def _compared(self) -> tuple[bool, bool]:
        """Whether the folder holds another run, to be replaced, and whether this run is done."""
        found, wanted = self._found(), self._record
        stale = found is not None and {name: found[name] for name in wanted} != wanted
        if found is not None and stale and not self._overwrite and (found["done"] or self._has_results()):
            raise ValueError(
                f"{self.folder} holds a run with other {_differences(found, wanted)}; accepted: another "
                "output_dir, or --overwrite true, which replaces it"
            )
        return stale, found is not None and not stale and bool(found["done"])

    def claim(self) -> None:
        """Takes the folder for this run, before models are loaded and a corpus is encoded; changes nothing in it.

        Raises:
            ValueError: another run is at work in the folder.
        """
        on_main(lambda: take(self._lock, self.folder))

    def start(self) -> None:
        """Claims the folder, deletes what another run left and records this run; call it after all checks.

        Raises:
            ValueError: another run is at work in the folder, or has finished it since this one compared settings.
        """
        on_main(self._start)

    def _start(self) -> None:
        take(self._lock, self.folder)
        stale, done = self._compared()  # another run may have ended between our first look and the lock
        if done and not self.done:
            self._lock.release(force=True)
            raise ValueError(
                f"output_dir: another run has just finished {self.folder} with the same settings; accepted: the same "
                "command again, which uses its result"
            )
        if stale:
            shutil.rmtree(self.folder)
        if self._found() is None:
            write_json(self._path, {**self._record, "done": False})

    @property
    def model(self) -> Path:
        """Folder of the stage's model."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of the trainer's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def _path(self) -> Path:
        return self.folder / "stage.json"

    def train(self, trainer: "Trainer") -> None:
        """Starts the stage and trains, from its last checkpoint if there is one."""
        self.start()
        trainer.train(resume_from_checkpoint=self.last_checkpoint(trainer.args.resume_from_checkpoint))

    def save(self, trainer: "Trainer", *parts: Any) -> None:
        """Saves what was trained, such as a model and its tokenizer, and the trainer's log, a list of records."""

        def write() -> None:
            with writing(self.model):
                for part in parts:
                    part.save_pretrained(self.model)
            write_json(self.folder / "log.json", trainer.state.log_history)

        on_main(write)

    def last_checkpoint(self, given: str | None = None) -> str | None:
        """The checkpoint to resume from, `given` or the newest finished one, as `checkpoint_to_resume` finds it."""
        return checkpoint_to_resume(self.checkpoints, given)

    def _found(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        with refusing(f"{self._path} is not a record of a stage", "the file as a stage wrote it, or none"):
            found: dict[str, Any] = json.loads(self._path.read_text())
            return {name: found[name] for name in (*self._record, "done")}

    def _has_results(self) -> bool:
        """Whether there is more than the record: a finished checkpoint, a model or a log."""
        others = (path for path in self.folder.rglob("*") if path.is_file() and self.checkpoints not in path.parents)
        finished_checkpoints = any(self.checkpoints.glob(f"checkpoint-*/{CHECKSUMS}"))
        return finished_checkpoints or any(path != self._path for path in others)

    def finish(self, **result: Any) -> None:
        """Marks the stage as done and records `result` beside the settings."""

        def close() -> None:
            write_json(self._path, {**self._record, "done": True, **result})
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            self._lock.release(force=True)

        on_main(close)


def finished(folder: Path) -> bool:
    """Whether the folder holds a finished stage."""
    return bool(read_record(folder / "stage.json").get("done"))


def earlier_model(given: str | None, output_dir: str, stage: str, remedy: str) -> str:
    """The model a stage starts from: `given`, or the result of an earlier stage of the run in `<stage>/model`.

    Raises:
        ValueError: no model is given and the earlier stage has not run; `remedy` says what to do.
    """
    path = given or str(Path(output_dir) / stage / "model")
    if given is None and not Path(path).is_dir():
        raise ValueError(f"{path} is missing; accepted: {remedy}")
    return path


def model_digest(name_or_path: str) -> str:
    """The fingerprint of a model a stage reads: a digest of a folder's weights and prompt, or the Hub id itself.

    Subfolders count too, because sentence-transformers keeps the weights of later modules there.
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
    """The fingerprint of a file a stage reads."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _settings(arguments: tuple[Any, ...]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for argument in arguments:
        values = argument.to_dict() if hasattr(argument, "to_dict") else dataclasses.asdict(argument)
        merged.update({name: value for name, value in values.items() if not name.startswith(_NOT_RESULTS)})
    return json.loads(json.dumps(merged, default=str))


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    changes = [
        f"{name} ({found[part].get(name)!r} there, {values.get(name)!r} now)"
        for part, values in wanted.items()
        for name in sorted({*values, *found[part]})
        if values.get(name) != found[part].get(name)
    ]
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return f"settings: {', '.join(changes[:5])}{more}"
