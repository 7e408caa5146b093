"""Metadata as it is stored: JSON that any tool can read, and columns that a store can filter by, one type per field."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..errors import fault
from .documents import Document
from .rows import without_nan

RESERVED = ("id", "text", "metadata", "vector")
_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
# Made once: json.dumps and json.loads make a new one per call.
_WRITER = json.JSONEncoder(default=str, allow_nan=False)
_READER = json.JSONDecoder(parse_constant=lambda _: None)
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class MetadataFields:
    """The type of each metadata field: text, bool, int or float, the same in all documents.

    A field with ints and floats is a float field. Nested values are left out: no filter reads them.

    Args:
        schema: of a table whose columns the fields must fit; `None` starts without fields.
    """

    def __init__(self, schema: pa.Schema | None = None) -> None:
        # Name -> type, and where it was seen first.
        self._known: dict[str, tuple[type | str, str]] = {}
        for column in [] if schema is None else schema:
            if column.name not in RESERVED:
                self._known[column.name] = (_python_type(column.type), "the store")

    def add(self, document: Document) -> None:
        """Adds a document's metadata.

        Raises:
            ValueError: a field has a name that no column can have, another type than before, or more than 64 bits.
        """
        for name, value, kind in _scalars(document):
            if name not in self._known:
                _check_name(name, document.id)
                self._known[name] = (kind, f"the document {document.id!r}")
            if kind is int and not -(1 << 63) <= value < 1 << 63:
                raise ValueError(
                    f"the document {document.id!r} has {value} in the metadata field {name!r}; accepted: whole numbers "
                    "of 64 bits"
                )
            known, where = self._known[name]
            if {known, kind} == {int, float}:
                self._known[name] = (float, where)
            elif known is not kind:
                earlier = known if isinstance(known, str) else _TYPE_NAMES[known]
                raise ValueError(
                    f"the metadata field {name!r} is {_TYPE_NAMES[kind]} in the document {document.id!r} and "
                    f"{earlier} in {where}; accepted: one type per field"
                )

    def columns(self, documents: Sequence[Document]) -> dict[str, pa.Array]:
        """The fields of documents that were added, as columns; missing values are null."""
        values: dict[str, list[Any]] = {}
        for row, document in enumerate(documents):
            for name, value, _ in _scalars(document):
                is_float = self._known[name][0] is float
                values.setdefault(name, [None] * len(documents))[row] = float(value) if is_float else value
        return {name: pa.array(found, _ARROW_TYPES[self._type(name)]) for name, found in values.items()}

    def _type(self, name: str) -> type:
        known = self._known[name][0]
        assert not isinstance(known, str)  # `add` refuses columns of other types
        return known


def cleaned(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents as they are stored: NaN, which JSON cannot hold, becomes a missing value.

    Raises:
        ValueError: an id or a text is not a string of valid Unicode, or metadata cannot be written as JSON.
    """
    for document in documents:
        if not isinstance(document.id, str) or not isinstance(document.text, str):
            raise ValueError(
                f"the document {document.id!r} has an id or a text that is not a string; accepted: strings"
            )
        if not isinstance(document.metadata, dict) or not all(isinstance(name, str) for name in document.metadata):
            raise ValueError(
                f"the metadata of the document {document.id!r} is not a dictionary with string keys; accepted: one"
            )
        try:
            try:
                held = metadata_json(document)
            except ValueError:
                fields = {name: without_nan(value) for name, value in document.metadata.items()}
                found = {name: value for name, value in fields.items() if value is not None}
                document = replace(document, metadata=found)
                held = metadata_json(document)
            (document.id + document.text).encode()
            if "\\ud" in held:  # a surrogate, perhaps without the other half
                json.dumps(json.loads(held), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the document {document.id!r} holds half of a surrogate pair; accepted: valid Unicode"
            ) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"the metadata of the document {document.id!r} cannot be written as JSON ({fault(error)}); accepted: "
                "finite numbers, texts, and lists and objects of them"
            ) from error
        yield document


def metadata_json(document: Document) -> str:
    """Metadata as JSON. Raises a ValueError if it holds a number that JSON cannot hold."""
    return _WRITER.encode(document.metadata)


def read_metadata(held: str) -> dict[str, Any]:
    """Reads what `metadata_json` wrote. NaN and infinity, which older versions wrote, become `None`."""
    found, end = _READER.raw_decode(held)  # twice as fast as decode
    if end != len(held):
        found = _READER.decode(held)
    if not isinstance(found, dict):
        raise ValueError(f"metadata is {held[:60]!r}; accepted: an object")
    return found


def _scalars(document: Document) -> Iterator[tuple[str, Any, type]]:
    for name, value in document.metadata.items():
        kind = type(value)
        if kind not in _ARROW_TYPES:  # nested, or a subclass, such as numpy's float64
            kind = next((known for known in _ARROW_TYPES if isinstance(value, known)), type(None))
        if kind in _ARROW_TYPES:
            yield name, value, kind


def _check_name(name: str, document: str) -> None:
    if name in RESERVED or name.startswith("_") or not name or set(name) & set(".`\"'\0"):
        raise ValueError(
            f"the document {document!r} has a metadata field called {name!r}; accepted: names without . ` \" ' or NUL "
            "that do not start with _, except " + ", ".join(RESERVED)
        )


def _python_type(column: pa.DataType) -> type | str:
    """The Python type of a column's values, or the name of a column type that no field has."""
    return next((kind for kind, arrow_type in _ARROW_TYPES.items() if column == arrow_type), str(column))
