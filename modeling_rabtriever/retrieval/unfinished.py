"""Which corpora a store was being given when a process ended: it lacks the rest of them.

A file in the store's folder says so from before the first document is added until all are there. Who wants to keep
such a store as it is deletes the file.
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
        added: documents of it that were added, in the order of the corpus; perhaps a shard more.
        documents: how many there are.
    """

    vectors: str
    added: int
    documents: int

    def warning(self, store: Path) -> str:
        """What to tell who searches that store."""
        return (
            f"{store} holds {self.added} of {self.documents} documents of {self.vectors}: rabtriever index --vectors "
            f"{self.vectors} --store {store} adds the others"
        )


class UnfinishedStoreWarning(UserWarning):
    """A store is searched that holds a part of a corpus."""


def read_unfinished(store: Path) -> list[Unfinished]:
    """The corpora a store holds parts of.

    Raises:
        ValueError: the file that says so is broken.
    """
    path = store / UNFINISHED
    try:
        found = read_record(path)
    except FileNotFoundError:  # a writer is done with the last of them at this moment
        return []
    for counts in found.values():
        if not isinstance(counts, dict):
            raise ValueError(f"{path} is no record of ours; accepted: the file as it was written, or none")
        check_record(path, counts, added=int, documents=int)
    return [Unfinished(vectors, counts["added"], counts["documents"]) for vectors, counts in found.items()]


def note_unfinished(store: Path, corpus: Unfinished) -> None:
    """Notes how far a corpus was added, and nothing of one that was added whole. Callers hold the store's lock."""
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
