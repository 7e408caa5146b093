"""Retrieval tasks in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, or the same on the Hub.

A task may have many millions of texts and labels: they lie in mapped files and arrays (`Texts`, `Relevance`). Errors
name the file and line. With `skip_bad`, lines that are not documents or queries, and judgements of absent documents or
queries, are left out and counted: public data sets have some.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ..retrieval.documents import DocumentReader
from ..retrieval.hub_files import HubDataSet
from .id_rows import IdRows
from .labelled import ABSENT, WITHOUT, Judgements, labelled
from .qrels import QRELS_FORMATS, TSV, read_qrels, read_rows
from .relevance import Relevance
from .texts import Texts, columns

DEV = "dev"  # the split to evaluate on during training, unless another one is named
BAD_DOCUMENTS, BAD_QUERIES = "bad lines of the corpus", "bad lines of the queries"


@dataclass(frozen=True)
class Split:
    """The judged queries of one split.

    Args:
        name: `train`, `dev`, `test`, ...
        query_ids: one id per query.
        queries: one text per query.
        relevant: per query the relevant documents: corpus row -> grade (at least 1). Unjudged means not relevant.
    """

    name: str
    query_ids: Sequence[str]
    queries: Sequence[str]
    relevant: Sequence[Mapping[int, int]]

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def judgements(self) -> int:
        """Number of (query, relevant document) pairs."""
        return len(Relevance.of(self.relevant).rows)

    def take(self, rows: Iterable[int]) -> "Split":
        """The same split, cut to the given rows."""
        kept = list(rows)
        return Split(
            self.name,
            [self.query_ids[row] for row in kept],
            [self.queries[row] for row in kept],
            [self.relevant[row] for row in kept],
        )


@dataclass(frozen=True)
class RetrievalTask:
    """A corpus and its judged splits. Documents are addressed by their row in `corpus`.

    Its texts are lists, or, if a file has more than 64 MB of them, sequences that read a mapped file (`Texts`).

    Args:
        name: of the task.
        corpus_ids: one id per document.
        corpus: one text per document.
        splits: name -> split.
        left_out: kind of bad data, in words -> how many were left out.

    Examples:
        >>> from modeling_rabtriever.tasks import RetrievalTask, Split
        >>> train = Split("train", ["q0"], ["I spilled my drink"], [{1: 1}])  # the second document is relevant
        >>> task = RetrievalTask("chores", ["d0", "d1"], ["bring a lamp", "bring the sponge"], {"train": train})
        >>> task.split("train").judgements
        1
    """

    name: str
    corpus_ids: Sequence[str]
    corpus: Sequence[str]
    splits: dict[str, Split]
    left_out: dict[str, int] = field(default_factory=dict)

    def split(self, name: str) -> Split:
        """One split by name.

        Raises:
            ValueError: the task has no such split.
        """
        if name not in self.splits:
            raise ValueError(f"task {self.name} has no split {name!r}; accepted: {', '.join(self.splits)}")
        return self.splits[name]

    def fingerprint(self) -> str:
        """A digest of all texts and judgements. Cached teacher states are valid for one fingerprint."""
        digest = hashlib.sha256()
        for part in chain(self.corpus_ids, self.corpus):
            digest.update(part.encode() + b"\0")
        for split in self.splits.values():
            for query_id, query, relevant in zip(split.query_ids, split.queries, split.relevant, strict=True):
                digest.update(f"{split.name}\0{query_id}\0{query}\0{sorted(relevant.items())}\0".encode())
        return digest.hexdigest()[:16]


def load_beir(folder: str | Path, skip_bad: bool = False) -> RetrievalTask:
    """Reads a task from a folder in BEIR layout. A document's text is its title, if any, and its text.

    Args:
        folder: with `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv` (`read_qrels`).
        skip_bad: whether to leave out and count bad lines, and judgements of an absent document or query.

    Raises:
        ValueError: the folder or a file is missing, a line is not a document or query, an id occurs twice, a judgement
            is malformed, names an absent id or contradicts another one, or a split has no relevant document.

    Examples:
        >>> from modeling_rabtriever.tasks import load_beir
        >>> task = load_beir("path/to/folder")
        >>> task.corpus[0], task.split("train").queries[0], task.split("train").relevant[0]
        ('a story about the ant', 'find me the ant', {0: 1})
    """
    folder = Path(folder)
    # Hidden files are those of editors and of other systems, such as macOS's ._test.tsv.
    found = (folder / "qrels").glob(f"[!.]*{TSV}")
    qrels_files = sorted(path for path in found if path.is_file())
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl"):
        if not path.is_file():
            compressed = f" ({path.name}.gz must be unpacked)" if path.with_name(f"{path.name}.gz").exists() else ""
            raise ValueError(
                f"{path} is missing{compressed}; accepted: a folder with corpus.jsonl, queries.jsonl, qrels/*.tsv"
            )
    if not qrels_files:
        raise ValueError(f"{folder / 'qrels'} holds no .tsv file; accepted: one per split, such as qrels/test.tsv")
    qrels = {path.stem: (str(path), partial(read_qrels, path)) for path in qrels_files}
    return _task(folder.name, str(folder / "corpus.jsonl"), str(folder / "queries.jsonl"), qrels, skip_bad)


def load_hub(data_set: str | Path, skip_bad: bool = False) -> RetrievalTask:
    """Reads a task from the Hub in BEIR layout, such as `mteb/scifact`.

    Args:
        data_set: id of a data set with the configurations `corpus`, `queries`, and for the judgements `default` or
            `qrels`, whose splits are the task's. Or a folder with the same layout.
        skip_bad: as for `load_beir`.

    Raises:
        ValueError: the data set cannot be read or has other configurations, or as `load_beir`.
    """
    data_set = str(data_set)
    files = HubDataSet(data_set)
    judged = next((name for name in ("qrels", "default") if name in files.configurations), None)
    if judged is None or not {"corpus", "queries"} <= set(files.configurations):
        raise ValueError(
            f"{data_set} has the configurations {', '.join(files.configurations)}; accepted: corpus, queries, and "
            "default or qrels"
        )
    found = files.files(judged, formats=QRELS_FORMATS).items()
    qrels = {name: (f"{data_set} {name}", partial(read_rows, paths, files.folder)) for name, paths in found}
    name = data_set.rpartition("/")[2]
    return _task(name, f"hub:{data_set}:corpus", f"hub:{data_set}:queries", qrels, skip_bad)


def with_unlabelled(split: Split, path: str | Path, skip_bad: bool = False) -> Split:
    """The split with more queries, which have no labels: their `relevant` is empty.

    Args:
        split: the judged queries.
        path: JSON lines with `_id` and `text`.
        skip_bad: whether to leave out lines that are not queries, and print how many.

    Raises:
        ValueError: the file or a field is missing, a text is blank, or an id occurs twice or is already in the split.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing; accepted: JSON lines with _id and text")
    ids, more, skipped = _read(str(path), skip_bad)
    twice = ids.take(np.flatnonzero(IdRows(split.query_ids).find(ids) >= 0))
    if len(twice):
        raise ValueError(f"{path} has the id {min(twice)}, which the split {split.name} has too; accepted: other ids")
    if skipped:
        print(f"{path}: left out bad lines ({skipped})")
    return Split(
        split.name,
        Texts(chain(split.query_ids, ids)).plain(),
        Texts(chain(split.queries, more)).plain(),
        Relevance.of(split.relevant).with_unlabelled(len(more)),
    )


def _task(
    name: str, corpus: str, queries: str, qrels: Mapping[str, tuple[str, Judgements]], skip_bad: bool
) -> RetrievalTask:
    corpus_ids, documents, bad_documents = _read(corpus, skip_bad)
    query_ids, asked, bad_queries = _read(queries, skip_bad)
    left_out = {BAD_DOCUMENTS: bad_documents, BAD_QUERIES: bad_queries, ABSENT: 0, WITHOUT: 0}
    known = IdRows(query_ids), IdRows(corpus_ids)
    splits = {}
    for split, (source, judgements) in qrels.items():
        rows, relevant = labelled(source, judgements, *known, left_out if skip_bad else None)
        splits[split] = Split(split, query_ids.take(rows).plain(), asked.take(rows).plain(), relevant)
    found = {what: count for what, count in left_out.items() if count}
    return RetrievalTask(name, corpus_ids.plain(), documents.plain(), splits, found)


def _read(source: str, skip_bad: bool) -> tuple[Texts, Texts, int]:
    """Ids, texts, and the number of bad lines that were left out."""
    reader = DocumentReader(source, skip_bad)
    ids, texts = columns(((document.id, document.text) for document in reader), 2)
    return ids, texts, reader.skipped
