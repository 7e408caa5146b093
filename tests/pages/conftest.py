"""A folder as a reader has it after the quickstart: models, data, and a folder of their own."""

import json
from pathlib import Path

import pytest

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, example
from modeling_rabtriever.tasks import write_household
from tests.conftest import write_animals

BACKBONE = {"model_type": "qwen2", "vocab_size": 400, "hidden_size": 32, "intermediate_size": 48}
BACKBONE |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind, model in (("student", RabtrieverModel), ("teacher", GenerativeRerankerModel)):
        model.from_pretrained(example("household", kind)).save_pretrained(tmp_path / f"runs/household/{kind}/model")
    write_household(tmp_path / "runs/household/data/household")
    write_animals(tmp_path / "path/to/folder")
    (tmp_path / "backbone.json").write_text(json.dumps(BACKBONE))
    monkeypatch.chdir(tmp_path)
    return tmp_path
