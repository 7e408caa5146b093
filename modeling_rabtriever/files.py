"""Atomic writes: a killed process leaves a file with its old content or its new content, never a part of it."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import reason, refusing

CHECKSUM = "crc32"  # in the metadata of safetensors files


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    replace_file(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_record(path: Path, **fields: type) -> dict[str, Any]:
    """A JSON object with these fields, each of the given type; an empty one if the file does not exist.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); accepted: the file as it was written") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a valid record; accepted: an object")
    check_record(path, record, **fields)
    return record


def check_record(path: Path, record: dict[str, Any], **fields: type) -> None:
    """Raises a ValueError if a record read from `path` lacks one of these fields, or a field has another type."""
    if any(type(record.get(name)) is not kind for name, kind in fields.items()):
        wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
        raise ValueError(f"{path} is not a valid record; accepted: an object with {wanted}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file atomically, with a checksum of its content."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    kept = {**(metadata or {}), CHECKSUM: _checksum(held, metadata or {})}
    replace_file(path, lambda temporary: save_file(held, temporary, kept))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads tensors and metadata that `write_tensors` wrote, on the CPU; large ones stay mapped to the file.

    Raises:
        ValueError: the file is missing, or has changed since it was written.
    """
    with refusing(f"{path} is broken", "the file as it was written; delete it to have it made again"):
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        written = metadata.pop(CHECKSUM, "none")
        if (found := _checksum(tensors, metadata)) != written:
            raise RuntimeError(f"its checksum is {found}, but {written} was written")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    value = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name, then renames; if that fails, nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            write(temporary)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns write errors of the system, safetensors and torch into an OSError that names `path`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        raise OSError(
            f"{path} cannot be written ({reason(error)}); accepted: a folder with room that can be written to"
        ) from error


def write_folder(path: Path, write: Callable[[Path], Any]) -> Path:
    """Calls `write` with a temporary folder beside `path`, then renames; if that fails, nothing is left behind.

    Raises:
        ValueError: `path` exists and is not an empty folder. Nothing in it is deleted.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} already exists; accepted: a new folder, or an empty one")
    temporary = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same number, as in a container
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path
