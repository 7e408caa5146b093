"""What a cache of a model's outputs holds: fingerprints of the model and of its texts, and folders named after them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import GenerativeRerankerModel, RabtrieverModel
from ..files import read_record, write_json
from ..identity import backbone_fingerprint, reading_fingerprint, same_encoder
from ..modeling_prefix_cache import model_fingerprint


def fingerprints(model: GenerativeRerankerModel | RabtrieverModel, *texts: Sequence[str]) -> dict[str, str]:
    """Fingerprints of everything that changes a model's states of these texts.

    Args:
        model: with its processor.
        texts: lists of texts it reads.

    Returns:
        `backbone` (settings and all weights, compare with `same_encoder`), `weights` (a sample of the exact weights,
        which also tells apart number types and a few more training steps), `reading` (prompt and tokenizer), `texts`.
    """
    return {
        "backbone": backbone_fingerprint(model),
        "weights": model_fingerprint(model.backbone),
        "reading": reading_fingerprint(model.processor),
        "texts": texts_fingerprint(*texts),
    }


def texts_fingerprint(*texts: Sequence[str]) -> str:
    """A digest of lists of texts."""
    digest = hashlib.sha256()
    for part in _as_json(texts):
        digest.update(part.encode())
    return digest.hexdigest()[:16]


def _as_json(texts: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lists of texts in JSON, in parts."""
    for number, group in enumerate(texts):
        yield ", [" if number else "[["
        for start in range(0, len(group), 8192):
            yield (", " if start else "") + json.dumps(list(group[start : start + 8192]))[1:-1]
        yield "]"
    yield "]" if texts else "[]"


def check_fingerprint(folder: Path, identity: dict[str, str]) -> None:
    """Marks a new cache folder as belonging to `identity`, or compares.

    Raises:
        ValueError: the folder belongs to something else.
    """
    path = folder / "fingerprint.json"
    if not path.exists():
        write_json(path, identity)
        return
    found = read_record(path)
    # Devices round a backbone's fingerprint differently; `same_encoder` compares all other strings exactly.
    differ = [name for name in found.keys() | identity.keys() if not _same(found.get(name), identity.get(name))]
    if differ:
        raise ValueError(
            f"{folder} holds scores of another teacher, prompt or task (different: {', '.join(sorted(differ))}); "
            "accepted: an empty folder, or this one after you deleted it"
        )


def _same(found: Any, wanted: str | None) -> bool:
    return isinstance(found, str) and wanted is not None and same_encoder(found, wanted)


def states_folder(root: str | Path, inputs: dict[str, str]) -> Path:
    """Folder of the cache for one teacher and one set of queries; `inputs` are their fingerprints."""
    return Path(root) / hashlib.sha256("".join(inputs.values()).encode()).hexdigest()[:16]
