"""The folder of uploaded files: the page's own, so that nothing in it outlives its visitor or the page."""

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

SESSION_SECONDS = 3600  # after the last change a session's documents are dropped; after the upload, a file nobody read
SWEEP_SECONDS = 60
KEPT = 100  # files; the oldest makes room
FOLDER = "GRADIO_TEMP_DIR"  # where Gradio writes uploads


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder that Gradio writes uploads to, inside `GRADIO_TEMP_DIR` where that is set; gone at the end.

    Raises:
        ValueError: there is no such folder, or it cannot be written to.
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
    """What is said where Gradio, or `upload_folder`, cannot write."""
    return ValueError(
        f"uploads cannot be kept in {error.filename} ({error.strerror}); accepted: a folder that can be written to, as "
        f"{FOLDER}"
    )


@asynccontextmanager
async def swept(folder: Path) -> AsyncIterator[None]:
    """Removes what is too old for as long as the page runs, and the folder when it ends."""

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
        with suppress(OSError):  # somebody else was faster, or the folder is not empty
            changed = path.lstat().st_mtime
            if not path.is_dir():
                files.append((changed, path))
            elif changed < oldest:
                path.rmdir()
    for place, (changed, path) in enumerate(sorted(files, reverse=True)):
        if changed < oldest or place >= KEPT:
            remove(path, folder)


def remove(path: Path, folder: Path) -> None:
    """Removes an upload and the folder that Gradio made for it inside `folder`."""
    with suppress(OSError):
        path.unlink()
        if path.parent != folder:
            path.parent.rmdir()
