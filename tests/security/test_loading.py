"""What is never loaded: pickles, and files outside the folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.retrieval import CorpusVectors
from tests.conftest import rest_slow


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


@pytest.fixture
def folder(student: RabtrieverModel, tmp_path: Path) -> Path:
    student.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def _changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


LOADERS = (AutoModel.from_pretrained, RabtrieverModel.from_pretrained)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights", "..\\model.safetensors", 3, None])
def test_an_index_of_weights_names_safetensors_alone(folder: Path, load: Callable[..., object], name: object) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"predictor.query_output.bias": name}})
    )
    with pytest.raises(ValueError, match=r"its index of weights names .*accepted: safetensors files of this folder"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["adapter_model.bin", "other.safetensors", "../model.safetensors"])
def test_a_configuration_names_no_weights(folder: Path, load: Callable[..., object], name: str) -> None:
    torch.save({"predictor.query_output.bias": Marker(folder / "ran")}, folder / "adapter_model.bin")
    _changed(folder / "config.json", transformers_weights=name)
    with pytest.raises(ValueError, match=r"transformers_weights in its config.json names files.*accepted"):
        load(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("load", LOADERS)
def test_a_tokenizer_is_the_folders_own(folder: Path, load: Callable[..., object]) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.1.0.0.json")
    _changed(folder / "tokenizer_config.json", fast_tokenizer_files=["../tokenizer.1.0.0.json"])
    with pytest.raises(ValueError, match=r"fast_tokenizer_files in its tokenizer_config.json names files.*accepted"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
def test_an_adapter_beside_the_weights_is_refused(folder: Path, load: Callable[..., object]) -> None:
    adapted = get_peft_model(RabtrieverModel.from_pretrained(folder), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"holds adapter_config.json.*accepted: a model with its adapter merged"):
        load(folder)


def test_an_adapter_alone_loads_no_other_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    _changed_into = {"base_model_name_or_path": str(folder), "peft_type": "LORA"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(_changed_into))
    with pytest.raises(ValueError, match="accepted: a model with its adapter merged"):
        load_model(tmp_path / "adapter")


def test_an_index_of_weights_cannot_point_outside(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    index = tmp_path / "model" / "model.safetensors.index.json"
    assert isinstance(AutoModel.from_pretrained(tmp_path / "model"), GenerativeRerankerModel)
    shard = min((tmp_path / "model").glob("model-*.safetensors"))
    shard.rename(tmp_path / shard.name)
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))
    with pytest.raises(ValueError, match=r"its index of weights names '\.\./model-.*accepted: safetensors files"):
        AutoModel.from_pretrained(tmp_path / "model")


CODE = """
from pathlib import Path
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
Path(__file__).with_name("ran").touch()
class Config(PreTrainedConfig):
    model_type = "unheard_of"
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def _says_yes(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(folder.parent / "home"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rabtriever_cli", *command],
        input="y\n" * 100, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", rest_slow(["encode", "info", "rank", "ray"]))
@pytest.mark.parametrize("where", ["config", "tokenizer"])
def test_the_command_line_never_asks_to_run_code(folder: Path, where: str, command: str) -> None:
    (folder / "evil.py").write_text(CODE)
    if where == "config":
        _changed(folder / "config.json", model_type="unheard_of", auto_map={"AutoConfig": "evil.Config"})
    else:
        automatic = {"AutoTokenizer": [None, "evil.Tokenizer"]}
        _changed(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=automatic)
    (folder.parent / "corpus.jsonl").write_text('{"id": "a", "text": "b"}\n')
    encode = ["encode", "--model", "student", "--corpus", "corpus.jsonl", "--output", "vectors"]
    commands = {
        "info": ["info", "student"],
        "rank": ["rank", "--model", "student", "--query", "a", "--documents", "corpus.jsonl"],
        "encode": encode,
        "ray": [*encode, "--engine", "ray"],
    }
    done = _says_yes(folder, *commands[command])
    assert not (folder / "ran").exists()
    assert not list((folder.parent / "home").rglob("ran"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "student cannot be loaded" in done.stderr and "accepted" in done.stderr


def test_vectors_of_a_folder_are_its_own(tmp_path: Path) -> None:
    record = (
        '{"done": true, "model": "m", "embedding_dim": 2, "vector_type": "float32", "documents": 1, "shards": ["../x"]}'
    )
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "encoding.json").write_text(record)
    (tmp_path / "x").write_bytes(b"not ours")
    with pytest.raises(ValueError, match=r"vectors"):
        list(CorpusVectors(tmp_path / "vectors"))
