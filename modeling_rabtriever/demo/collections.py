"""What a visitor of the page chooses from: documents and the models that rank them, as a YAML file lists them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..loading import load_model
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_rabtriever import RabtrieverModel
from ..retrieval.documents import Document
from ..served.address import is_address
from ..yaml_mapping import read_mapping
from .documents import check_text, read_corpus
from .ranking import checked_query, checked_student, checked_teacher

_PACKAGED = Path(__file__).with_name("packaged.yaml")  # the models that come with the package
MOST_EXAMPLES = 8
MOST_NAME = 60  # characters
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FIELDS = "model, corpus, and perhaps teacher, examples, revision"


@dataclass(frozen=True)
class Collection:
    """Documents and the models that rank them.

    Args:
        name: what the page calls it.
        student: the student to try.
        documents: the corpus that it starts with.
        teacher: its ranking is shown beside the student's.
        examples: at most 8 example queries to click.

    Raises:
        ValueError: the name or an example is blank or too long, there are too many examples or no documents, or a model
            has the wrong class.
    """

    name: str
    student: RabtrieverModel
    documents: Sequence[Document]
    teacher: GenerativeRerankerModel | None = None
    examples: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        checked_student(self.student)
        checked_teacher(self.teacher)
        if not self.documents:
            raise ValueError(f"{self.name} has no documents; accepted: at least one")
        object.__setattr__(self, "examples", _checked_examples(self.examples))


@dataclass(frozen=True)
class Entry:
    """A collection before its models are loaded: folders of this machine with their path, or ids on the Hub."""

    name: str
    model: str
    corpus: str
    teacher: str | None = None
    examples: tuple[str, ...] = ()
    revision: str = "main"

    def load(self, dtype: str = "auto", device: str = "cpu") -> Collection:
        """Reads the documents and loads the models.

        Raises:
            ValueError: as `read_corpus`, `load_model` and `Collection`.
        """
        try:
            documents = read_corpus(self.corpus)
            student = load_model(self.model, dtype, device, self.revision)
            teacher = None if self.teacher is None else load_model(self.teacher, dtype, device, self.revision)
            return Collection(self.name, student, documents, teacher, self.examples)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error


def read_collections(file: str | Path | None = None, dtype: str = "auto", device: str = "cpu") -> list[Collection]:
    """Loads the collections of a YAML file: name -> settings.

        tools:
          model: runs/tools/student/model      # a folder, or a Hub id
          teacher: runs/tools/teacher/model    # optional
          corpus: data/tools/corpus.jsonl      # as `DocumentReader` reads it; at most 5,000 documents
          examples: ["Find me a recipe with lentils."]
          revision: main                       # of Hub ids; optional
        household:                             # no settings: the models that come with the package

    Relative paths start at the file's folder.

    Args:
        file: the YAML file; `None` is the household models that come with the package.
        dtype: of the models, as for `load_model`.
        device: where they run.

    Raises:
        ValueError: the file cannot be read; a setting is unknown, missing or not accepted; or a corpus or a model
            cannot be loaded.
    """
    return [entry.load(dtype, device) for entry in read_entries(file)]


def read_entries(file: str | Path | None = None) -> list[Entry]:
    """The collections of a YAML file, not yet loaded, as in `read_collections`."""
    file = _PACKAGED if file is None else Path(file)
    return [_entry(file, name, settings) for name, settings in _settings(file).items()]


def _settings(file: Path) -> dict[str, Any]:
    accepted = "a YAML mapping of name -> settings"
    found = read_mapping(file, accepted)
    if not found:
        raise ValueError(f"{file} lists no collections; accepted: {accepted}")
    return found


def _entry(file: Path, name: Any, settings: Any) -> Entry:
    if settings is None:
        packaged = _settings(_PACKAGED)
        if name not in packaged:
            raise ValueError(f"{file}: {name} has no settings; accepted: {_FIELDS}, or the name {', '.join(packaged)}")
        return _entry(_PACKAGED, name, packaged[name])
    try:
        _check_name(name)
        if not isinstance(settings, dict):
            raise ValueError(f"its settings are {settings!r}; accepted: {_FIELDS}")
        given = dict(settings)
        examples = given.pop("examples", [])
        if not isinstance(examples, list) or not all(isinstance(example, str) for example in examples):
            raise ValueError(f"examples is {examples!r}; accepted: a list of texts")
        if not {"model", "corpus"} <= given.keys() <= {"model", "corpus", "teacher", "revision"}:
            raise ValueError(f"its settings are {', '.join(map(str, settings))}; accepted: {_FIELDS}")
        for field, value in given.items():
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{field} is {value!r}; accepted: a text")
        if given["corpus"] == "-":
            raise ValueError("corpus is '-'; accepted: .jsonl, .parquet, hub:<data set>")
        checked = _checked_examples(examples)
        models = [field for field in ("model", "teacher") if field in given]
        given |= {field: _model_place(file.parent, field, given[field]) for field in models}
    except ValueError as error:
        raise ValueError(f"{file}: {name}: {error}") from error
    if not given["corpus"].startswith("hub:"):
        given["corpus"] = str(file.parent / given["corpus"])
    return Entry(name=name, examples=tuple(checked), **given)


def _model_place(folder: Path, field: str, path: str) -> str:
    """The path of a model's folder, or a Hub id as it is: a folder elsewhere of that name is another model.

    A teacher behind a server is none: it would be asked about every document for every query of every visitor.

    Raises:
        ValueError: the path is neither.
    """
    if is_address(path):
        raise ValueError(
            f"{field} is {path!r}, the address of a server; accepted on the page: a folder or a Hub id (rabtriever "
            "search --rerank and rank --model take addresses)"
        )
    place = folder / path
    if os.path.isdir(place):  # false, not an error, if the name is too long
        return str(place)
    if os.path.isdir(path) or not _HUB_ID.fullmatch(path):
        raise ValueError(
            f"{field} is {path!r}, and there is no folder {place}; accepted: a folder, from that of the file, or a "
            "Hub id (org/name)"
        )
    return path


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME:
        raise ValueError(f"the name is {name!r}; accepted: a text of at most {MOST_NAME} characters")
    check_text("the name", name)


def _checked_examples(examples: Sequence[str]) -> list[str]:
    if len(examples) > MOST_EXAMPLES:
        raise ValueError(f"{len(examples)} examples are given; accepted: at most {MOST_EXAMPLES}")
    return [checked_query(example) for example in examples]
