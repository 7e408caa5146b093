"""The demo page: a student's ranking beside those of BM25 and its teacher. Needs the extra "demo"."""

from .collections import Collection, read_collections
from .documents import read_corpus
from .ranking import IndexedTexts, Ranker
from .server import serve
from .space import write_space

__all__ = ["Collection", "IndexedTexts", "Ranker", "read_collections", "read_corpus", "serve", "write_space"]
