"""The page as a folder for a Space of the Hugging Face Hub."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import gradio
import yaml

from .. import __version__
from ..files import write_folder
from .collections import Collection, Entry, read_entries

README = """\
---
title: Rabtriever
emoji: 🔎
colorFrom: green
colorTo: blue
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
{models}short_description: Retrieval by reasoning, scored by an inner product
---

# Rabtriever

Ranks documents for a query with BM25, Rabtriever and, where there is one, its teacher side by side, on the collections
of `collections.yaml` or on a visitor's own documents, and shows the terms of each score. On your machine:
`pip install -r requirements.txt`, then `python app.py`.
"""
APP = '''\
"""The page: `python app.py`, or a Space of the Hugging Face Hub."""

from pathlib import Path

from modeling_rabtriever.demo import read_collections, serve

if __name__ == "__main__":
    serve(read_collections(Path(__file__).with_name("collections.yaml")))
'''


def write_space(folder: str | Path, file: str | Path | None = None, dtype: str = "auto") -> Path:
    """Writes `app.py`, its settings, `collections.yaml`, the corpora, and the models that are not on the Hub.

    Args:
        folder: a new folder.
        file: the collections, as for `read_collections`. The Space gets their corpora and the models of folders; it
            loads models of the Hub, and those that come with the package, where it runs.
        dtype: of the models that are saved into the folder, as for `load_model`.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is not empty or cannot be written, or as `read_collections`.
    """
    entries = read_entries(file)
    packaged = read_entries()
    loaded = [entry.load(dtype) for entry in entries]  # checks everything before anything is written

    def write(place: Path) -> None:
        listed = {}
        for row, (entry, collection) in enumerate(zip(entries, loaded, strict=True), start=1):
            listed[entry.name] = None if entry in packaged else _write_collection(place, row, entry, collection)
        ids = {path for entry in entries for path in (entry.model, entry.teacher) if path and not Path(path).is_dir()}
        texts = {
            "app.py": APP,
            "collections.yaml": yaml.safe_dump(listed, allow_unicode=True, sort_keys=False),
            "requirements.txt": f"modeling-rabtriever[demo]=={__version__}\n",
            "README.md": README.format(
                gradio=gradio.__version__,
                python=f"{sys.version_info.major}.{sys.version_info.minor}",
                models="".join(["models:\n", *(f"  - {hub_id}\n" for hub_id in sorted(ids))]) if ids else "",
            ),
        }
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")

    try:
        return write_folder(Path(folder), write)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}); accepted: a new folder") from error


def _write_collection(place: Path, row: int, entry: Entry, collection: Collection) -> dict[str, Any]:
    """Writes a collection's files; its settings in the Space's `collections.yaml`."""
    own = f"{row}-{re.sub('[^a-z0-9]+', '-', entry.name.lower())}".strip("-")
    (place / own).mkdir()
    settings: dict[str, Any] = {}
    for field, path, model in (
        ("model", entry.model, collection.student),
        ("teacher", entry.teacher, collection.teacher),
    ):
        if path is None or model is None:
            continue
        if Path(path).is_dir():
            model.save_pretrained(place / own / field)
            settings[field] = f"{own}/{field}"
        else:
            settings |= {field: path, "revision": entry.revision}
    lines = [
        json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False) + "\n"
        for document in collection.documents
    ]
    (place / own / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    return {**settings, "corpus": f"{own}/corpus.jsonl", "examples": list(collection.examples)}
