"""What lies around the models when they are searched with: encoding a corpus, keeping it, searching it.

Of the extra "retrieval"; the documents' reader needs no more than the package itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corpus_vectors import CorpusVectors, Shard, encoder_fingerprint
    from .documents import Document, DocumentReader
    from .encoding import encode_corpus
    from .exact import ExactIndex
    from .prefix_files import PrefixFiles
    from .search import Searcher
    from .store import Hit, VectorStore

__all__ = [
    "CorpusVectors",
    "Document",
    "DocumentReader",
    "ExactIndex",
    "Hit",
    "PrefixFiles",
    "Searcher",
    "Shard",
    "VectorStore",
    "encode_corpus",
    "encoder_fingerprint",
]
_MODULES = {
    "corpus_vectors": ("CorpusVectors", "Shard", "encoder_fingerprint"),
    "documents": ("Document", "DocumentReader"),
    "encoding": ("encode_corpus",),
    "exact": ("ExactIndex",),
    "prefix_files": ("PrefixFiles",),
    "search": ("Searcher",),
    "store": ("Hit", "VectorStore"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:  # read when asked for: training reads documents without the store's libraries
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
