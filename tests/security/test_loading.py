"""What is never loaded: pickles, and files outside the folder."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.retrieval import CorpusVectors


class Marker:
    """Leaves a file when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin"])
def test_a_pickle_is_not_opened(student: RabtrieverModel, tmp_path: Path, name: str) -> None:
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "student" / "model.safetensors").unlink()
    torch.save({"weights": Marker(tmp_path / "ran")}, tmp_path / "student" / name)
    for load in (AutoModel.from_pretrained, RabtrieverModel.from_pretrained):
        with pytest.raises(OSError, match="safetensors"):
            load(tmp_path / "student")
    with pytest.raises(ValueError, match="use_safetensors is False; accepted: True"):
        RabtrieverModel.from_pretrained(tmp_path / "student", use_safetensors=False)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "student" / name, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have run


def test_an_index_of_weights_cannot_point_outside(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    index = tmp_path / "model" / "model.safetensors.index.json"
    assert isinstance(AutoModel.from_pretrained(tmp_path / "model"), GenerativeRerankerModel)
    shard = min((tmp_path / "model").glob("model-*.safetensors"))
    shard.rename(tmp_path / shard.name)
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))
    with pytest.raises(ValueError, match=r"its index of weights names '\.\./model-.*accepted: files of this folder"):
        AutoModel.from_pretrained(tmp_path / "model")


def test_vectors_of_a_folder_are_its_own(tmp_path: Path) -> None:
    record = (
        '{"done": true, "model": "m", "embedding_dim": 2, "vector_type": "float32", "documents": 1, "shards": ["../x"]}'
    )
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "encoding.json").write_text(record)
    (tmp_path / "x").write_bytes(b"not ours")
    with pytest.raises(ValueError, match=r"vectors"):
        list(CorpusVectors(tmp_path / "vectors"))
