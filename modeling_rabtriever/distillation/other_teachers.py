"""Teachers that only score pairs: a cross-encoder of sentence-transformers, or scores computed elsewhere.

They have no hidden states to distil, so the listwise term stands alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..retrieval.documents import BadDocumentError, id_text
from ..retrieval.json_lines import numbered_lines, parse_line
from ..tasks.beir import RetrievalTask, Split
from ..trainers.stage_folder import model_digest

MAX_SCORE = torch.finfo(torch.float32).max
SCORE_LINE = "accepted: an object with query-id, corpus-id and a number as score"


@dataclass(frozen=True)
class PairScorer:
    """A scorer of (query, document) pairs.

    Args:
        score: rows of queries and of documents, `(p,)` int64 each -> `(p,)` scores; higher means more relevant.
        identity: a digest of what the scores come from.
        pools: per query the corpus rows that can be scored; `None` means all.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    identity: str
    pools: list[list[int]] | None = None

    def judge(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        """What `TeacherScores` stores of these pairs."""
        return {"logits": self.score(queries, documents).float().cpu()}


def cross_encoder(
    name_or_path: str, queries: Sequence[str], documents: Sequence[str], device: str, trust_remote_code: bool = False
) -> PairScorer:
    """Any model `sentence_transformers.CrossEncoder` loads that gives one number per pair; its raw logits.

    Args:
        name_or_path: Hub id or folder.
        queries: texts of the query rows.
        documents: texts of the corpus rows.
        device: where it runs.
        trust_remote_code: whether code from the model's repository may run.

    Raises:
        ValueError: the model gives several numbers per pair.
    """
    from sentence_transformers import CrossEncoder  # of the extra "export"

    weights = {"use_safetensors": True}  # no pickle
    model = CrossEncoder(name_or_path, device=device, trust_remote_code=trust_remote_code, model_kwargs=weights)
    if model.num_labels != 1:
        raise ValueError(
            f"{name_or_path} gives {model.num_labels} numbers per pair; accepted: a cross-encoder with one"
        )

    def score(query_rows: Tensor, document_rows: Tensor) -> Tensor:
        rows = zip(query_rows.tolist(), document_rows.tolist(), strict=True)
        pairs = [(queries[query], documents[document]) for query, document in rows]
        return model.predict(
            pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False
        ).reshape(-1)

    return PairScorer(score, f"cross-encoder {model_digest(name_or_path)}")


def scores_from_jsonl(path: str | Path, task: RetrievalTask, split: Split) -> PairScorer:
    """Scores computed elsewhere: one JSON object per line with `query-id`, `corpus-id` and `score`.

    Candidates of a query are drawn among the documents the file scores for it. Lines about queries of other splits are
    left out.

    Args:
        path: the file.
        task: whose documents it names.
        split: the queries that will be trained on.

    Raises:
        ValueError: a line is malformed, names an unknown document, scores a pair twice or not with a finite number.
    """
    query_rows = {query_id: row for row, query_id in enumerate(split.query_ids)}
    corpus_rows = {corpus_id: row for row, corpus_id in enumerate(task.corpus_ids)}
    scores: list[dict[int, float]] = [{} for _ in split.query_ids]
    digest = hashlib.sha256()
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file; accepted: JSON lines with query-id, corpus-id and score")
    for number, query_id, corpus_id, score in _read_lines(Path(path), digest):
        if corpus_id not in corpus_rows:
            raise ValueError(
                f"{path} line {number} names document {corpus_id!r}, which the corpus lacks; accepted: "
                "documents of the corpus"
            )
        if query_id in query_rows:
            found = scores[query_rows[query_id]]
            if corpus_rows[corpus_id] in found:
                raise ValueError(
                    f"{path} line {number} scores {query_id!r}, {corpus_id!r} a second time; accepted: once"
                )
            found[corpus_rows[corpus_id]] = score

    def score(queries: Tensor, documents: Tensor) -> Tensor:
        return torch.tensor([scores[q][d] for q, d in zip(queries.tolist(), documents.tolist(), strict=True)])

    return PairScorer(score, f"scores {digest.hexdigest()[:16]}", [list(found) for found in scores])


def _read_lines(path: Path, digest: Any) -> Iterator[tuple[int, str, str, float]]:
    """Number, query, document and score of each line that is not blank; `digest` gets all bytes of the file."""
    with path.open("rb") as file:
        for number, _, line in numbered_lines(_digested(file, digest)):
            try:
                row = parse_line(line)
            except ValueError as error:
                raise ValueError(f"{path} line {number}: {error}") from None
            if not isinstance(row, dict) or type(row.get("score")) not in (int, float):
                raise ValueError(f"{path} line {number} is {line[:80]!r}; {SCORE_LINE}")
            if not abs(row["score"]) <= MAX_SCORE:
                raise ValueError(
                    f"{path} line {number} has the score {str(row['score'])[:20]}; accepted: a number fp32 holds"
                )
            try:
                query_id, corpus_id = id_text(row.get("query-id")), id_text(row.get("corpus-id"))
            except BadDocumentError:
                raise ValueError(f"{path} line {number} is {line[:80]!r}; {SCORE_LINE}") from None
            yield number, query_id, corpus_id, float(row["score"])


def _digested(lines: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line
