"""Search with the models: encode a corpus, store it, search it.

Needs the extra "retrieval". A name is imported when it is first used, so reading documents needs no store.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from ..identity import encoder_fingerprint
    from .approximate import Tuning
    from .axes import principal_axes
    from .corpus_vectors import CorpusVectors, Shard
    from .documents import Document, DocumentReader
    from .encoding import encode_corpus
    from .exact import ExactIndex
    from .hits import Deleted, Hit
    from .prefix_files import PrefixFiles
    from .search import Searcher
    from .store import VectorStore
    from .unfinished import Unfinished, UnfinishedStoreWarning

__getattr__ = imported_when_used(
    __name__,
    {
        "CorpusVectors": "corpus_vectors",
        "Deleted": "hits",
        "Document": "documents",
        "DocumentReader": "documents",
        "ExactIndex": "exact",
        "Hit": "hits",
        "PrefixFiles": "prefix_files",
        "Searcher": "search",
        "Shard": "corpus_vectors",
        "Tuning": "approximate",
        "Unfinished": "unfinished",
        "UnfinishedStoreWarning": "unfinished",
        "VectorStore": "store",
        "encode_corpus": "encoding",
        "encoder_fingerprint": ".identity",
        "principal_axes": "axes",
    },
)

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
    "Tuning",
    "Unfinished",
    "UnfinishedStoreWarning",
    "VectorStore",
    "encode_corpus",
    "encoder_fingerprint",
    "principal_axes",
]
