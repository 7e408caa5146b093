"""Metadata as columns a store can filter by: one per field whose values are numbers, texts or truth values."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

RESERVED = ("id", "text", "metadata", "vector")
_NUMBERS = (pa.int64(), pa.float64())


def metadata_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """The fields of all rows as columns; missing values are null. Nested values are left out: no filter reads them.

    Raises:
        ValueError: a field has a reserved name, a character SQL cannot take, or values of several types.
    """
    values: dict[str, list[Any]] = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            if isinstance(value, (str, bool, int, float)):
                values.setdefault(name, [None] * len(rows))[place] = value
    return {name: _column(name, found) for name, found in values.items()}


def checked_fields(columns: Mapping[str, pa.Array], schema: pa.Schema) -> list[pa.Field]:
    """The fields a table lacks.

    Raises:
        ValueError: a field has another type in the table.
    """
    for name, column in columns.items():
        if name in schema.names and not _fits(column.type, schema.field(name).type):
            raise ValueError(
                f"the metadata field {name!r} is {column.type} here and {schema.field(name).type} in the store; "
                "accepted: one type per field"
            )
    return [pa.field(name, column.type) for name, column in columns.items() if name not in schema.names]


def _column(name: str, values: list[Any]) -> pa.Array:
    if name in RESERVED or name.startswith("_") or not name or set(name) & set(".`\"'"):
        raise ValueError(
            f"a metadata field is called {name!r}; accepted: names without . ` \" ', not starting with _, and none of "
            + ", ".join(RESERVED)
        )
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    elif len(kinds) > 1:
        named = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(
            f"the metadata field {name!r} has values of several types ({named}); accepted: one type per field"
        )
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise ValueError(f"the metadata field {name!r} cannot be held ({error})") from error


def _fits(given: pa.DataType, held: pa.DataType) -> bool:
    return given == held or (given == _NUMBERS[0] and held == _NUMBERS[1])
