"""The page to try a student on: its ranking beside BM25's and its teacher's. Of the extra "demo"."""

from .documents import read_corpus
from .page import build_page, serve
from .ranking import Collection, Ranker
from .space import write_space

__all__ = ["Collection", "Ranker", "build_page", "read_corpus", "serve", "write_space"]
