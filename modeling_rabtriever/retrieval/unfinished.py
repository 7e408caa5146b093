"""Records which corpora a store holds only in part, because the process that added them ended early.

A file in the store's folder lists a corpus from before its first document is added until the last one is. To keep such
a store as it is, delete the file.
"""

from dataclasses import dataclass
from pathlib import Path

from ..files import check_record, read_record, write_json

UNFINISHED = "unfinished.json"


@dataclass(frozen=True)
class Unfinished:
    """A corpus of which a store holds a part.

    Args:
        vectors: the folder of the encoded corpus.
        added: number of its documents that were added, in the order of the corpus; up to one shard more may be there.
        documents: number of its documents.
    """

    vectors: str
    added: int
    documents: int

    def warning(self, store: Path) -> str:
        """The warning for a search of that store."""
        return (
            f"{store} holds {self.added} of {self.documents} documents of {self.vectors}: rabtriever index --vectors "
            f"{self.vectors} --store {store} adds the rest"
        )


class UnfinishedStoreWarning(UserWarning):
    """A search reads a store that holds only a part of a corpus."""


def read_unfinished(store: Path) -> list[Unfinished]:
    """The corpora of which a store holds only a part.

    Raises:
        ValueError: the file that lists them is broken.
    """
    path = store / UNFINISHED
    try:
        found = read_record(path)
    except FileNotFoundError:  # a writer has just finished the last of them
        return []
    for counts in found.values():
        if not isinstance(counts, dict):
            raise ValueError(f"{path} is not a valid record; accepted: the file as it was written, or no file")
        check_record(path, counts, added=int, documents=int)
    return [Unfinished(vectors, counts["added"], counts["documents"]) for vectors, counts in found.items()]


def note_unfinished(store: Path, corpus: Unfinished) -> None:
    """Records how much of a corpus was added; one that is complete is removed. The caller holds the store's lock."""
    found = {held.vectors: held for held in read_unfinished(store)} | {corpus.vectors: corpus}
    left = {
        held.vectors: {"added": held.added, "documents": held.documents}
        for held in found.values()
        if held.added < held.documents
    }
    if left:
        write_json(store / UNFINISHED, left)
    else:
        (store / UNFINISHED).unlink(missing_ok=True)
