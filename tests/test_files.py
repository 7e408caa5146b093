"""Files of tensors: what is read is what was written, to the last bit, or it is refused."""

import random
from pathlib import Path

import pytest
import torch

from modeling_rabtriever.files import read_tensors, write_tensors

TENSORS = {
    "states": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),
    "half": torch.linspace(0, 1, 9, dtype=torch.bfloat16),
    "keys": torch.arange(11),
    "none": torch.empty(0, 3),
    "one": torch.tensor(2.5, dtype=torch.float64),
    "mask": torch.tensor([True, False]),
}


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
