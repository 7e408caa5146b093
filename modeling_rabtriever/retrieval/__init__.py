"""What lies around the models when they are searched with: encoding a corpus, keeping it, searching it.

Of the extra "retrieval".
"""

from .corpus_vectors import CorpusVectors, Shard, encoder_fingerprint
from .documents import Document, DocumentReader
from .encoding import encode_corpus
from .exact import ExactIndex
from .prefix_files import PrefixFiles
from .search import Searcher
from .snapshot import Hit
from .store import Deleted, VectorStore
from .unfinished import Unfinished, UnfinishedStoreWarning

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
