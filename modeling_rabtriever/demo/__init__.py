"""The demo page: a student's ranking beside those of BM25 and its teacher. Needs the extra "demo"."""

from .documents import read_corpus
from .ranking import Collection, Ranker
from .server import serve
from .space import write_space

__all__ = ["Collection", "Ranker", "read_corpus", "serve", "write_space"]
