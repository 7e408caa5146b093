"""The cache of a served teacher's scores. What has been answered is on disk within seconds, whatever happens."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..identity import reading_fingerprint
from ..served.in_flight import in_flight
from ..served.teacher import PAIRS_PER_REQUEST, ServedTeacher
from ..trainers.processes import on_each
from .cache_fingerprints import texts_fingerprint
from .teacher_states import SHARD_PAIRS, TeacherScores
from .token_ids import TokenIdsOf

UNWRITTEN_SECONDS = 20.0  # a killed process loses at most the answers of this long


class ServedScores(TeacherScores):
    """Log-odds of pairs by a teacher behind a server; a document's queries follow one another.

    The cache belongs to the model that the server names, not to the server's address.

    Args:
        folder: of the cache; created if missing.
        teacher: the served reranker.
        queries: all training queries.
        documents: the corpus.

    Raises:
        ValueError: the folder holds scores of another teacher, prompt or text, or the server's answers are not usable.
        ConnectionError: the server does not answer.
    """

    shown_from = 0

    def __init__(self, folder: Path, teacher: ServedTeacher, queries: Sequence[str], documents: Sequence[str]) -> None:
        self.teacher = teacher
        processor = teacher.processor
        self._suffixes = TokenIdsOf(processor.query_ids, queries)
        self._prefixes = TokenIdsOf(processor.document_ids, documents)
        identity = {
            "server": json.dumps(on_each(teacher.connect), sort_keys=True),
            "reading": reading_fingerprint(processor),
            "texts": texts_fingerprint(queries, documents),
        }
        super().__init__(folder, len(queries), self._ask, identity)

    def _ask(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        suffixes, prefixes = self._suffixes.of(queries.tolist()), self._prefixes.of(documents.tolist())
        prompts = [prefix + suffix for prefix, suffix in zip(prefixes, suffixes, strict=True)]
        try:
            return {"logits": self.teacher.log_odds(prompts)}
        except ConnectionError as error:
            raise ConnectionError(f"{error}; scored pairs are kept") from error

    def _parts(self, keys: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """As answers arrive, those of some seconds at a time; after an error, what has been answered comes first."""
        held: list[tuple[Tensor, Tensor]] = []
        written = time.monotonic()
        blocks = keys.split(PAIRS_PER_REQUEST)
        try:
            for block, found in in_flight(lambda block: self._score(block)["logits"], blocks, self.teacher.requests):
                held.append((block, found))
                late = time.monotonic() - written > UNWRITTEN_SECONDS
                if late or len(held) * PAIRS_PER_REQUEST >= SHARD_PAIRS:
                    yield _joined(held)
                    held, written = [], time.monotonic()
        except GeneratorExit:  # nobody takes more
            raise
        except BaseException:
            if held:
                yield _joined(held)
            raise
        if held:
            yield _joined(held)


def _joined(held: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    keys, logits = (torch.cat(part) for part in zip(*held, strict=True))
    return keys, {"logits": logits}
