"""What lies around the models when they are searched with: encoding a corpus, keeping it, searching it.

Of the extra "retrieval". A name is imported when it is first used: documents are read without a store being installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..identity import encoder_fingerprint
    from .corpus_vectors import CorpusVectors, Shard
    from .documents import Document, DocumentReader
    from .encoding import encode_corpus
    from .exact import ExactIndex
    from .prefix_files import PrefixFiles
    from .search import Searcher
    from .snapshot import Hit
    from .store import Deleted, VectorStore
    from .unfinished import Unfinished, UnfinishedStoreWarning

_PLACES = {
    "CorpusVectors": "corpus_vectors",
    "Deleted": "store",
    "Document": "documents",
    "DocumentReader": "documents",
    "ExactIndex": "exact",
    "Hit": "snapshot",
    "PrefixFiles": "prefix_files",
    "Searcher": "search",
    "Shard": "corpus_vectors",
    "Unfinished": "unfinished",
    "UnfinishedStoreWarning": "unfinished",
    "VectorStore": "store",
    "encode_corpus": "encoding",
    "encoder_fingerprint": ".identity",
}

__all__ = [
    "CorpusVectors",
    "Deleted",
    "Document",
    "DocumentReader",
    "ExactIndex",
    "Hit",
    "PrefixFiles",
    "Searcher",
    "Shard",
    "Unfinished",
    "UnfinishedStoreWarning",
    "VectorStore",
    "encode_corpus",
    "encoder_fingerprint",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
