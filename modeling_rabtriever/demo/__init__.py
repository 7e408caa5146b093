"""The page to try a student on: its ranking beside BM25's and its teacher's. Of the extra "demo"."""

from .documents import read_corpus
from .ranking import Collection, Ranker
from .server import serve
from .space import write_space

__all__ = ["Collection", "Ranker", "read_corpus", "serve", "write_space"]
