"""Retrieval tasks in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, or the same on the Hub."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Features, Value, concatenate_datasets, get_dataset_config_names, load_dataset

_QRELS = Features({"query-id": Value("string"), "corpus-id": Value("string"), "score": Value("int64")})


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
    query_ids: list[str]
    queries: list[str]
    relevant: list[dict[int, int]]

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def judgements(self) -> int:
        """Number of (query, relevant document) pairs."""
        return sum(len(relevant) for relevant in self.relevant)

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
    """A corpus and its judged splits. Documents are addressed by their row in `corpus`."""

    name: str
    corpus_ids: list[str]
    corpus: list[str]
    splits: dict[str, Split]

    def split(self, name: str) -> Split:
        """One split by name.

        Raises:
            ValueError: the task has no such split.
        """
        if name not in self.splits:
            raise ValueError(f"task {self.name} has no split {name!r}; it has: {', '.join(self.splits)}")
        return self.splits[name]

    def fingerprint(self) -> str:
        """A digest of all texts and judgements: what cached teacher states of this task belong to."""
        digest = hashlib.sha256()
        for part in (*self.corpus_ids, *self.corpus):
            digest.update(part.encode() + b"\0")
        for split in self.splits.values():
            for query_id, query, relevant in zip(split.query_ids, split.queries, split.relevant, strict=True):
                digest.update(f"{split.name}\0{query_id}\0{query}\0{sorted(relevant.items())}\0".encode())
        return digest.hexdigest()[:16]


def load_beir(folder: str | Path) -> RetrievalTask:
    """Reads a task from a folder in BEIR layout. A document's text is its title, if any, and its text.

    Raises:
        ValueError: the folder, a file or a field is missing; an id occurs twice; a document or judged query is blank;
            a judgement names an unknown id.
    """
    folder = Path(folder)
    qrels_files = sorted((folder / "qrels").glob("*.tsv"))
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl"):
        if not path.is_file():
            raise ValueError(f"{path} is missing; accepted: a folder with corpus.jsonl, queries.jsonl, qrels/*.tsv")
    if not qrels_files:
        raise ValueError(f"{folder / 'qrels'} holds no .tsv file; accepted: one per split, such as qrels/test.tsv")

    corpus, queries = (_texts(folder / f"{name}.jsonl") for name in ("corpus", "queries"))
    judgements = {path.stem: (str(path), _judgements(path)) for path in qrels_files}
    return _task(folder.name, corpus, queries, judgements)


def load_hub(data_set: str) -> RetrievalTask:
    """Reads a task from the Hub in BEIR layout, as `mteb/scifact` has it.

    Args:
        data_set: id of a data set with the configurations `corpus`, `queries`, and for the judgements `default` or
            `qrels`, whose splits are the task's.

    Raises:
        ValueError: it has other configurations, or as `load_beir`.
    """
    names = get_dataset_config_names(data_set)
    qrels = next((name for name in ("qrels", "default") if name in names), None)
    if qrels is None or not {"corpus", "queries"} <= set(names):
        raise ValueError(
            f"{data_set} has the configurations {', '.join(names)}; accepted: corpus, queries, and default or qrels"
        )
    corpus, queries = (
        _checked_texts(f"{data_set} {name}", concatenate_datasets(list(load_dataset(data_set, name).values())))
        for name in ("corpus", "queries")
    )
    judgements = {
        name: (f"{data_set} {name}", rows.cast(_QRELS)) for name, rows in load_dataset(data_set, qrels).items()
    }
    return _task(data_set.rpartition("/")[2], corpus, queries, judgements)


def with_unjudged(split: Split, path: str | Path) -> Split:
    """The split with more queries, which nobody judged: their `relevant` is empty.

    Args:
        split: the judged queries.
        path: JSON lines with `_id` and `text`.

    Raises:
        ValueError: the file or a field is missing, a text is blank, an id occurs twice or is one of the split's.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing; accepted: JSON lines with _id and text")
    more = _texts(path)
    if twice := more.keys() & set(split.query_ids):
        raise ValueError(f"{path} has the id {min(twice)}, a query of the split {split.name}; accepted: ids of its own")
    return Split(
        split.name, [*split.query_ids, *more], [*split.queries, *more.values()], [*split.relevant, *({} for _ in more)]
    )


def _task(
    name: str, corpus: dict[str, str], queries: dict[str, str], judgements: dict[str, tuple[str, Iterable[Any]]]
) -> RetrievalTask:
    rows = {corpus_id: row for row, corpus_id in enumerate(corpus)}
    splits = {split: _split(split, source, found, queries, rows) for split, (source, found) in judgements.items()}
    return RetrievalTask(name, list(corpus), list(corpus.values()), splits)


def _texts(path: Path) -> dict[str, str]:
    return _checked_texts(str(path), load_dataset("json", data_files=str(path), split="train"))


def _judgements(path: Path) -> Iterable[Any]:
    judgements: Any = load_dataset("csv", data_files=str(path), sep="\t", split="train", features=_QRELS)
    return judgements


def _checked_texts(source: str, rows: Iterable[Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if row.get("_id") is None or row.get("text") is None:
            raise ValueError(f'{source} line {number} is {row!r}; accepted: an object with "_id" and "text"')
        text = f"{row.get('title') or ''} {row['text']}".strip()
        if not text:
            raise ValueError(f"{source} line {number} ({row['_id']}) has no text; accepted: a title or a text")
        if str(row["_id"]) in texts:
            raise ValueError(f"{source} line {number}: the id {row['_id']} occurs twice; accepted: unique ids")
        texts[str(row["_id"])] = text
    return texts


def _split(name: str, source: str, judgements: Iterable[Any], queries: dict[str, str], rows: dict[str, int]) -> Split:
    judged: dict[str, dict[int, int]] = {}
    for number, judgement in enumerate(judgements, start=2):  # line 1 is the header
        query_id, corpus_id, grade = judgement["query-id"], judgement["corpus-id"], judgement["score"]
        if query_id not in queries:
            raise ValueError(f"{source} line {number} names query {query_id!r}, which queries.jsonl lacks")
        if corpus_id not in rows:
            raise ValueError(f"{source} line {number} names document {corpus_id!r}, which corpus.jsonl lacks")
        if grade > 0:
            judged.setdefault(query_id, {})[rows[corpus_id]] = grade
    if not judged:
        raise ValueError(f"{source} judges no document relevant; accepted: at least one score above 0")
    return Split(name, list(judged), [queries[query_id] for query_id in judged], list(judged.values()))
