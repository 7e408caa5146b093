"""Checks of a model folder before it is published: its files, its card, its scores."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard, ModelCardData

from ..loading import load_model
from . import release_scores
from .layout import CARDS, EVALUATION
from .licenses import FROM_SCRATCH, KEYS, check_licenses

PACKAGE = Path(__file__).parents[1]
HUB_FILES = {path.name for kind in ("configuration", "modeling", "processing") for path in PACKAGE.glob(f"{kind}_*.py")}
NAMES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", *HUB_FILES,
}  # fmt: skip
LICENSE = "LICENSE"  # pushed where it lies, and left alone in the repository where it does not
PATTERN = re.compile(rf"model-\d{{5}}-of-\d{{5}}\.safetensors|{EVALUATION}/[\w.-]+\.(json|png)")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
SYSTEMS = {"generative_reranker": CARDS["teacher"][1], "rabtriever": CARDS["student"][1]}
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|More Information Needed|\bTODO\b|\bTBD\b")
LINK = re.compile(rf"\]\(({EVALUATION}/[^)]+)\)")
TOLERANCE = 1e-4  # of scores, relative to the largest one (or to 1)


def expected(name: str) -> bool:
    """Whether a path in a repository is one that a release writes."""
    return name in NAMES or PATTERN.fullmatch(name) is not None


def release_files(folder: Path) -> list[str]:
    """Every file of the folder as a path in the repository, sorted.

    Raises:
        ValueError: the folder is not a saved teacher or student, or holds a pickle, a link or an unexpected file.
    """
    config = folder / "config.json"
    if not config.is_file() or _model_type(folder) not in SYSTEMS:
        raise ValueError(f"{folder} is not a saved model; accepted: <run>/teacher/model or <run>/student/model")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise ValueError(f"{folder} holds {', '.join(pickles)}; accepted: weights as safetensors, never a pickle")
    kept = [name for name in names if expected(name) or name == LICENSE]
    others = [name for name in names if name not in kept or (folder / name).is_symlink()]
    if others:
        raise ValueError(
            f"{folder} holds {', '.join(others)}; accepted: what save_pretrained and rabtriever card write there, "
            "and no links; move other files away"
        )
    missing = sorted({"processor_config.json", "tokenizer.json"} - set(names))
    if missing or not any(name.endswith(".safetensors") for name in names):
        raise ValueError(f"{folder} lacks {', '.join(missing) or 'safetensors weights'}; save the model again")
    return names


def load_card(folder: Path) -> ModelCard:
    """The folder's card.

    Raises:
        ValueError: there is none, or its metadata is malformed.
    """
    if not (folder / "README.md").is_file():
        raise ValueError(f"{folder / 'README.md'} is missing; write it first: rabtriever card RUN")
    return ModelCard.load(folder / "README.md")


def card_data(card: ModelCard) -> ModelCardData:
    """The metadata of a card, typed as that of a model card."""
    return cast("ModelCardData", card.data)


def check_card(folder: Path) -> None:
    """Checks that the card is complete and agrees with the evaluation next to it.

    Raises:
        ValueError: metadata, a licence, results or a plot are missing, licences contradict each other, a placeholder is
            left, or a result differs from the report.
    """
    card = load_card(folder)
    metadata, results = card.data.to_dict(), card_data(card).eval_results
    for what, key in KEYS.items():
        if not metadata.get(key):
            remedy = f", or base_model={FROM_SCRATCH} for weights trained from scratch" if what == "base_model" else ""
            raise ValueError(
                f"the card does not say the licence of the {what.replace('_', ' ')} ({key}); give it: --license "
                f"{what}=LICENCE with an identifier such as apache-2.0{remedy}"
            )
    check_licenses(metadata)
    if metadata["base_model_license"] != FROM_SCRATCH and not metadata.get("base_model"):
        raise ValueError("the card does not say the base_model; give it: rabtriever card RUN --base_model org/name")
    missing = [key for key in ("library_name", "pipeline_tag", "tags", "model-index") if not metadata.get(key)]
    if missing or not results:
        raise ValueError(
            f"the card's metadata lacks {', '.join(missing) or 'results'}; write it again: rabtriever card RUN"
        )
    left = PLACEHOLDER.search(card.content)
    if left:
        raise ValueError(f"the card has an unfilled placeholder: {left[0]!r}; accepted: a card without any")
    for path in LINK.findall(card.text):
        if not (folder / path).is_file():
            raise ValueError(f"the card shows {path}, which is missing; write it again: rabtriever card")
    system = SYSTEMS[_model_type(folder)]
    for result in results:
        path = folder / EVALUATION / f"{result.dataset_split}.json"
        report = json.loads(path.read_text()) if path.is_file() else {"systems": {}}
        found = report["systems"].get(system, {}).get(result.metric_type, {}).get("mean")
        if found is None or abs(found - result.metric_value) > 1e-4:
            raise ValueError(
                f"the card says {result.metric_type} = {result.metric_value} on {result.dataset_split}, {path} says "
                f"{found}; write it again: rabtriever card RUN"
            )


def check_loading(folder: Path) -> None:
    """Loads the folder with the package and, in a new process, without it, and compares the scores.

    The new process runs the Python files of the folder, as `trust_remote_code=True` does for a user. It has no network,
    no token, an empty cache and another working directory.

    Raises:
        ValueError: the folder fails to load in one of these ways, or the scores differ by more than `TOLERANCE`.
    """
    with tempfile.TemporaryDirectory() as home:
        secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_MODULES_CACHE")
        environment = {name: value for name, value in os.environ.items() if name not in secrets}
        environment |= {"HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        finished = subprocess.run(
            [sys.executable, "-I", str(Path(release_scores.__file__).resolve()), str(folder.resolve())],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    if finished.returncode != 0:
        reason = "\n".join(finished.stderr.strip().splitlines()[-5:])
        raise ValueError(f"{folder} does not load without the package, as users of the Hub load it:\n{reason}")
    found = json.loads(finished.stdout.splitlines()[-1])
    if not found["module"].startswith("transformers_modules."):
        raise ValueError(f"{folder} was loaded by {found['module']}, not by its own files; save the model again")
    alone = torch.tensor(found["scores"])
    packaged = release_scores.fixed_scores(load_model(folder))
    if not (alone.isfinite().all() and packaged.isfinite().all()):
        raise ValueError(f"{folder} gives scores that are not finite; accepted: a trained model")
    furthest = float((alone - packaged).abs().max())
    allowed = TOLERANCE * max(1.0, float(packaged.abs().max()))
    if furthest > allowed:
        raise ValueError(
            f"{folder} has other scores without the package: up to {furthest:.3g} apart; accepted: {allowed:.3g}. Its "
            "Python files are older than its weights or this package: load the model and save it again"
        )


def _model_type(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text()).get("model_type")
