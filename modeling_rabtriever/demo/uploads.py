"""The page's own folder for uploaded files. Nothing in it outlives its visitor or the page."""

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

SESSION_SECONDS = 3600  # a session's documents are dropped this long after the last change, an unread upload as well
SWEEP_SECONDS = 60
MOST_FILES = 100  # the oldest is removed first
FOLDER = "GRADIO_TEMP_DIR"  # where Gradio writes uploads


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder for Gradio's uploads, inside `GRADIO_TEMP_DIR` if that is set. It is removed at the end.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    before = os.environ.get(FOLDER)
    try:
        parent = Path(before or tempfile.gettempdir()).resolve()
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="rabtriever-", dir=parent))
    except OSError as error:
        raise no_folder(error) from error
    os.environ[FOLDER] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop(FOLDER)
        if before is not None:
            os.environ[FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)


def no_folder(error: OSError) -> ValueError:
    """The error if Gradio or `upload_folder` cannot write."""
    return ValueError(
        f"uploads cannot be kept in {error.filename} ({error.strerror}); accepted: a folder that can be written to, "
        f"set as {FOLDER}"
    )


@asynccontextmanager
async def swept(folder: Path) -> AsyncIterator[None]:
    """Removes old files while the page runs, and the folder when it ends."""

    async def sweep() -> None:
        while True:
            await anyio.to_thread.run_sync(remove_old, folder)
            await anyio.sleep(SWEEP_SECONDS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweep)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            shutil.rmtree(folder, ignore_errors=True)  # a signal may end the process before `upload_folder` does


def remove_old(folder: Path) -> None:
    """Removes files and empty folders before they are `SESSION_SECONDS` old, and the oldest of too many files."""
    oldest = time.time() - SESSION_SECONDS + SWEEP_SECONDS
    files: list[tuple[float, Path]] = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # already removed, or the folder is not empty
            changed = path.lstat().st_mtime
            if not path.is_dir():
                files.append((changed, path))
            elif changed < oldest:
                path.rmdir()
    for place, (changed, path) in enumerate(sorted(files, reverse=True)):
        if changed < oldest or place >= MOST_FILES:
            remove(path, folder)


def remove(path: Path, folder: Path) -> None:
    """Removes an upload and the folder that Gradio made for it inside `folder`."""
    with suppress(OSError):
        path.unlink()
        if path.parent != folder:
            path.parent.rmdir()
