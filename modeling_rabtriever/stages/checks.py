"""Checks before the first step of a run: splits, files, models and folders that would otherwise fail hours later."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import AutoConfig

from .. import GenerativeRerankerConfig
from ..errors import refusing
from ..tasks.beir import RetrievalTask

# An earlier stage of the same pipeline run -> configuration of the language model it will write.
Earlier = Mapping[str, Any]
NOTHING: Earlier = MappingProxyType({})


def check_splits(task: RetrievalTask, **wanted: str | Sequence[str]) -> None:
    """Raises a ValueError if the task lacks a split that an option names; `wanted` is option -> split or splits."""
    for option, names in wanted.items():
        for name in [names] if isinstance(names, str) else names:
            if name not in task.splits:
                raise ValueError(f"{option} is {name!r}, which {task.name} lacks; accepted: {', '.join(task.splits)}")


def check_file(option: str, path: str | None) -> None:
    """Raises a ValueError if the file that an option names does not exist."""
    if path is not None and not Path(path).is_file():
        raise ValueError(f"{option} {path} is not a file; accepted: an existing file")


def check_model(option: str, name_or_path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The configuration of the model that an option names.

    Raises:
        ValueError: the folder is not a model, or this user cannot read such a model from the Hub or its cache.
    """
    path = Path(name_or_path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"{option} {name_or_path} has no config.json; accepted: a folder with a model, or a Hub id")
    with refusing(f"{option} {name_or_path} cannot be read", "a folder with a model, or the id of one on the Hub"):
        return AutoConfig.from_pretrained(name_or_path, revision=revision, trust_remote_code=trust_remote_code)


def check_teacher(path: str, trust_remote_code: bool) -> Any:
    """The configuration of a teacher's language model.

    Raises:
        ValueError: as `check_model`, or the model is not a teacher.
    """
    found = check_model("teacher", path, trust_remote_code=trust_remote_code)
    if found.model_type != GenerativeRerankerConfig.model_type:
        raise ValueError(f"teacher {path} is a {found.model_type} model; accepted: a GenerativeRerankerModel")
    return found.text_config


def check_folder(option: str, path: str) -> None:
    """Raises a ValueError if the folder that an option names can be neither written to nor created."""
    place = Path(path).absolute()
    found = next(parent for parent in (place, *place.parents) if parent.exists())
    if not found.is_dir() or not os.access(found, os.W_OK):
        what = "is not writable" if found.is_dir() else "is not a folder"
        raise ValueError(f"{option} {path}: {found} {what}; accepted: a writable folder, which may be new")


def check_positive(**values: int | None) -> None:
    """Raises a ValueError if the value of an option is below 1; `None` is accepted."""
    for option, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{option} is {value}; accepted: 1 or more")
