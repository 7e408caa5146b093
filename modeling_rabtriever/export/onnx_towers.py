"""Exports the two towers to ONNX (token ids in, vectors out) with PyTorch's exporter. Needs the extra `onnx`."""

import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoTokenizer

from ..errors import refusing
from ..files import write_folder
from ..modeling_rabtriever import RabtrieverModel
from .prompt_tokenizer import SIDES
from .stock_backbone import check_backbone
from .towers import along, check_axes, check_close, full_precision, write_tower

MODEL = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
# The vector comes first, for readers of a graph's first output. sentence-transformers reads the states by their name.
OUTPUTS = ("sentence_embedding", "last_hidden_state")
_WEIGHTS = "model.safetensors"  # of the backbone, which the graph holds
LARGEST_FILE = 1.5e9  # bytes of weights; more go into a file beside the graph (protobuf is limited to 2 GB)
_LONGEST = 1 << 20  # largest size of the dynamic axes


class _Tower(nn.Module):
    """A sentence-transformers tower as one function of tensors."""

    def __init__(self, tower: SentenceTransformer) -> None:
        super().__init__()
        model: Any = tower[0].auto_model
        self.transformer = model
        self.rest = nn.ModuleList(list(tower)[1:])
        self.caching = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask `(batch, length)` int64 -> vectors `(batch, k)` and states `(batch, length, d)`, fp32."""
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **self.caching)
        features = {"token_embeddings": states.last_hidden_state, "attention_mask": attention_mask}
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding"], states.last_hidden_state


def export_onnx(student: RabtrieverModel, folder: str | Path, axes: Tensor | None = None) -> Path:
    """Writes `query` and `document`, each with `model.onnx` and the tokenizer that holds the prompt.

    The folders are towers as `export_sentence_transformers` writes them, with the graph in place of the backbone's
    weights, so `SentenceTransformer(folder, backend="onnx")` reads them too.

    A graph takes `input_ids` and `attention_mask`, int64 `(batch, length)`, padded on the right like the tokenizer
    pads. It gives `sentence_embedding`, fp32 `(batch, k)`, and `last_hidden_state`, fp32 `(batch, length, d)`.
    `tokenizer.json` by itself pads and truncates; with `AutoTokenizer` ask for it: `tokenizer(texts, padding=True,
    truncation=True, return_tensors="np")`. The graph's vectors in ONNX Runtime are compared with the student's before
    the folder appears. Weights beyond `LARGEST_FILE` are in a file beside the graph. `axes` are those of
    `export_sentence_transformers`.

    Raises:
        ValueError: as `export_sentence_transformers`; or the graph's vectors differ from the student's.
    """
    check_backbone(student)
    check_axes(student, axes)

    def write(new: Path) -> None:
        for side in SIDES:
            _write_graph(student, side, new / side, axes)

    with refusing(
        "this student cannot be exported", "a student as save_pretrained writes it, and a folder to write to"
    ):
        return write_folder(Path(folder), write)


@torch.no_grad()
def _write_graph(student: RabtrieverModel, side: str, folder: Path, axes: Tensor | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sample = write_tower(student, side, Path(scratch), axes)
        tower = SentenceTransformer(scratch, device="cpu", model_kwargs={"attn_implementation": "eager"})
        shutil.copytree(scratch, folder, ignore=lambda place, _: [_WEIGHTS] if place == scratch else [])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    dynamic = {axis: torch.export.Dim(name, min=1, max=_LONGEST) for axis, name in enumerate(("batch", "length"))}
    inputs = tokenizer(sample[:2], padding=True, truncation=True, return_tensors="pt")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs optional packages that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about torch's own functions
        program: Any = torch.onnx.export(
            _Tower(tower).eval(),
            tuple(inputs[name] for name in INPUTS),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=(dynamic, dynamic),
            verbose=False,
        )
        large = sum(parameter.nbytes for parameter in tower.parameters()) > LARGEST_FILE
        program.save(str(folder / MODEL), external_data=large)
    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
    exact = full_precision(student)
    encode = exact.encode_query if side == "query" else exact.encode_document
    for texts in (sample, sample[:1], sample[-1:]):
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        found = session.run(OUTPUTS[:1], {name: inputs[name] for name in INPUTS})[0]
        check_close(f"{side} vectors of the graph", torch.from_numpy(found), along(encode(texts), axes).cpu())
