"""Files of tensors: what is read is what was written, to the last bit, or it is refused."""

import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from modeling_rabtriever.files import read_record, read_tensors, write_folder, write_json, write_tensors, write_text

TENSORS = {
    "states": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),
    "half": torch.linspace(0, 1, 9, dtype=torch.bfloat16),
    "keys": torch.arange(11),
    "none": torch.empty(0, 3),
    "one": torch.tensor(2.5, dtype=torch.float64),
    "mask": torch.tensor([True, False]),
}


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{", "[]", "\xff"])
def test_records_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"r\.json is not .*; accepted"):
        read_record(tmp_path / "r.json")


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", TENSORS, {"model": "m"})
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    assert metadata == {"model": "m"} and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, {"model": "m"})
    whole, rng = path.read_bytes(), random.Random(0)
    for place in rng.sample(range(8 * len(whole)), 400):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"t.safetensors is broken \(.*accepted: the file as it was written"):
            read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is broken .*accepted: the file as it was written"):
        read_tensors(tmp_path / "t.safetensors")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Like a disk with little room: what is longer cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [lambda path: write_text(path, "x" * 10_000), lambda path: write_tensors(path, {"x": torch.ones(10_000)})],
    ids=["text", "tensors"],
)
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.write_text("what was there")
    with files_of_at_most(1_000), pytest.raises(OSError, match=r"/file cannot be written \(.*; accepted: a folder"):
        write(path)
    assert path.read_text() == "what was there" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="/file"):
        write_json(tmp_path / "file" / "record.json", {})


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a container the next process has the same number."""
    (tmp_path / f".model.{os.getpid()}.tmp").mkdir()
    (tmp_path / f".model.{os.getpid()}.tmp" / "half").write_text("x")
    write_folder(tmp_path / "model", lambda folder: (folder / "whole").write_text("y"))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/whole"]
