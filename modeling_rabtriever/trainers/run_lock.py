"""One run at a time in a folder: the operating system's lock of a file, which ends with the process that holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import writing
from .processes import on_main


def run_lock(path: Path) -> FileLock:
    """The lock in this file, one object per process: a run that failed never keeps its process from another try."""
    return FileLock(path.absolute(), is_singleton=True)


def take(lock: FileLock, folder: Path) -> None:
    """Takes the lock of the run in `folder`; only the main process of a run calls it.

    Raises:
        ValueError: another run holds it.
    """
    path = Path(lock.lock_file)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            pass
    raise ValueError(f"output_dir: another run works in {folder} now; accepted: another folder, or this one afterwards")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Refuses a second run that would write its checkpoints into this folder at the same time.

    Raises:
        ValueError: another run writes there.
    """
    lock = run_lock(folder / ".run.lock")
    on_main(lambda: take(lock, folder))
    try:
        yield
    finally:
        lock.release()
