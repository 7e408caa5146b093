"""Many texts that are read from a mapped file when they are needed, instead of a Python list of all of them."""

import mmap
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ..files import writing

IN_MEMORY = 64 << 20  # bytes of texts up to which no file is written
_BLOCK = 8192  # texts handled at once


Places: TypeAlias = NDArray[np.int64]


class Texts(Sequence[str]):
    """A list of texts that does not change. It compares equal to any sequence of the same texts.

    Texts of more than `IN_MEMORY` bytes together lie in a temporary file without a name, in the folder that `TMPDIR`
    names; the system deletes it when the last process that reads it ends. Memory then holds 8 bytes per text.

    Args:
        texts: read once, one at a time.

    Raises:
        OSError: the temporary file cannot be written.

    Examples:
        >>> from modeling_rabtriever.tasks.texts import Texts
        >>> texts = Texts(["bring the sponge", "call a doctor"])
        >>> texts[1], len(texts), texts[:1] == ["bring the sponge"]
        ('call a doctor', 2, True)
    """

    _content: bytes | mmap.mmap
    _begins: Places
    _ends: Places

    def __init__(self, texts: Iterable[str]) -> None:
        (only,) = columns(((text,) for text in texts), 1)
        vars(self).update(vars(only))

    @classmethod
    def _within(cls, content: bytes | mmap.mmap, begins: Places, ends: Places) -> "Texts":
        made = cls.__new__(cls)
        made._content, made._begins, made._ends = content, begins, ends
        return made

    def take(self, rows: Places | slice) -> "Texts":
        """Some of the texts, in the order of `rows`; they are not copied."""
        return self._within(self._content, self._begins[rows], self._ends[rows])

    def plain(self) -> "list[str] | Texts":
        """A list, which every library takes, unless the texts lie in a file."""
        return self if isinstance(self._content, mmap.mmap) else list(self)

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Texts": ...
    def __getitem__(self, row: int | slice) -> "str | Texts":
        if isinstance(row, slice):
            return self.take(row)
        return self._content[self._begins[row] : self._ends[row]].decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):  # Python's numbers are faster than numpy's one by one
            part = slice(start, start + _BLOCK)
            begins, ends = self._begins[part].tolist(), self._ends[part].tolist()
            for begin, end in zip(begins, ends, strict=True):
                yield self._content[begin:end].decode()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == text for own, text in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Texts([{shown}{', ...' if len(self) > 3 else ''}]), {len(self):,} texts"

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (list(self),)


def hashes(texts: Sequence[str]) -> Places:
    """A number per text, `(n,)` int64; equal texts have the same one. It differs from process to process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def columns(rows: Iterable[tuple[str, ...]], count: int) -> tuple[Texts, ...]:
    """The columns of a table of texts, such as ids and documents, which lie together.

    Args:
        rows: of `count` texts each; read once, one at a time.
        count: number of columns.

    Raises:
        OSError: the temporary file cannot be written.
    """
    bounds, rest = array("q", [0]), iter(rows)
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        while part := [text.encode() for row in islice(rest, _BLOCK) for text in row]:
            bounds.extend(islice(accumulate(map(len, part), initial=bounds[-1]), 1, None))
            with writing(Path(tempfile.gettempdir())):
                file.write(b"".join(part))
        content: bytes | mmap.mmap
        if bounds[-1] > IN_MEMORY:
            with writing(Path(tempfile.gettempdir())):
                file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # stays when the file is closed
        else:
            file.seek(0)
            content = file.read()
    places = np.frombuffer(bounds, np.int64)
    begins, ends = places[:-1], places[1:]
    return tuple(Texts._within(content, begins[column::count], ends[column::count]) for column in range(count))
