"""The cache of the teacher's scores: log-odds of every scored pair and, if a loss needs them, hidden states.

Each pair is scored once and kept on disk, in safetensors shards that are written atomically. An interrupted run loses
at most the shard it was working on; the next run scores only what is missing. The processes of a run divide the pairs.
Runs that share a folder take turns, and each scores only pairs that the others have not. The folder holds fingerprints
of teacher, prompt and texts; a cache with other fingerprints is refused.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .. import GenerativeRerankerModel
from ..errors import fault
from ..files import read_tensors, write_tensors, writing
from ..progress import progress
from ..trainers.processes import gather, is_main, on_each, on_main, own_part
from .cache_fingerprints import check_fingerprint, fingerprints
from .token_ids import TokenIdsOf

SHARD_PAIRS = 2048


class TeacherScores:
    """Scores of (query, document) pairs by any scorer, cached on disk.

    Args:
        folder: of the cache; created if missing.
        query_count: number of queries; a pair names a query by its row.
        score_pairs: rows of queries and of documents, `(p,)` int64 each, sorted by document -> what the cache stores
            for these pairs: `logits` `(p,)` fp32, and `states` if the scorer has them.
        identity: fingerprints of the scorer and of the texts.

    Raises:
        ValueError: the folder holds the scores of something else.
    """

    shown_from = SHARD_PAIRS  # pairs to score from which progress is shown

    def __init__(
        self,
        folder: Path,
        query_count: int,
        score_pairs: Callable[[Tensor, Tensor], dict[str, Tensor]],
        identity: dict[str, str],
    ) -> None:
        self.folder, self.query_count, self.score_pairs = folder, query_count, score_pairs
        on_main(lambda: check_fingerprint(folder, identity))
        self._keys = torch.empty(0, dtype=torch.long)  # sorted; one number per pair
        self._slots = torch.empty(0, dtype=torch.long)  # where in the joined shards the pair of that key lies
        self._logits = torch.empty(0)
        self._shards: list[dict[str, Tensor]] = []  # memory-mapped
        self._starts = torch.zeros(1, dtype=torch.long)
        self._opened: set[Path] = set()
        on_each(self._open_shards)

    def __len__(self) -> int:
        """Number of pairs scored so far: what the teacher has cost."""
        return len(self._keys)

    @torch.no_grad()
    def score(self, queries: Tensor, documents: Tensor) -> int:
        """Scores the pairs that are not in the cache yet and adds them to it.

        Args:
            queries: `(p,)` int64 query rows.
            documents: `(p,)` int64 corpus rows.

        Returns:
            How many pairs were new.

        Raises:
            ValueError: a score is not finite.
        """
        wanted = self._key(queries, documents).unique()
        on_each(self._open_shards)
        if not on_main(lambda: len(self._missing(wanted))):
            return 0
        lock = FileLock(self.folder / "scoring.lock")
        on_main(lambda: _acquire(lock))
        try:
            on_each(self._open_shards)  # pairs that another run has scored in the meantime
            missing = on_main(lambda: self._missing(wanted))
            written = gather(on_each(lambda: self._score_missing(own_part(missing))))
            on_each(lambda: self._open_shards(*(path for paths in written for path in paths)))
        finally:
            lock.release()
        return len(missing)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The pairs scored so far: rows of queries and of documents, int64, sorted by document."""
        return self._keys % self.query_count, self._keys // self.query_count

    def logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        """The teacher's scores of cached pairs: two tensors of rows, of any equal shape -> that shape, fp32.

        Raises:
            ValueError: a pair has not been scored.
        """
        return self._logits[self._find(queries, documents)]

    def _missing(self, keys: Tensor) -> Tensor:
        return keys[~torch.isin(keys, self._keys)]

    def _score_missing(self, missing: Tensor) -> list[Path]:
        written: list[Path] = []
        if not len(missing):  # another run has scored them while this one waited, or other processes have them all
            return written
        quiet = len(missing) < self.shown_from or not is_main()
        with progress(len(missing), "scoring with the teacher", "pair", quiet) as bar:
            for keys, found in self._parts(missing):
                if not torch.isfinite(found["logits"]).all():
                    raise ValueError("the teacher's scores hold NaN or infinity; accepted: finite scores")
                # A unique name, as other processes and other runs write into the same folder.
                written.append(self.folder / f"pairs-{uuid.uuid4().hex}.safetensors")
                write_tensors(written[-1], {"keys": keys, **found})
                bar.update(len(keys))
        return written

    def _parts(self, keys: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Pairs with what the cache stores of them; each part becomes a shard."""
        for part in keys.split(SHARD_PAIRS):
            yield part, self._score(part)

    def _score(self, keys: Tensor) -> dict[str, Tensor]:
        return self.score_pairs(keys % self.query_count, keys // self.query_count)

    def _key(self, queries: Tensor, documents: Tensor) -> Tensor:
        return documents * self.query_count + queries

    def _find(self, queries: Tensor, documents: Tensor) -> Tensor:
        keys = self._key(queries, documents)
        places = torch.searchsorted(self._keys, keys).clamp(max=max(len(self._keys) - 1, 0))
        if not len(self._keys) or not torch.equal(self._keys[places], keys):
            raise ValueError("the teacher has not scored some of these pairs; call score() with them first")
        return self._slots[places]

    def _open_shards(self, *named: Path) -> None:
        """Opens new shards, of this run and of others; if two shards hold the same pair, the first one counts.

        The `named` shards are opened even if a network file system does not list them yet.
        """
        paths = sorted({*self.folder.glob("pairs-*.safetensors"), *named} - self._opened)
        self._opened |= set(paths)
        every = map(_read_shard, paths)  # states stay memory-mapped until rows are read
        shards = [shard for shard in every if self.holds_enough(shard)]
        if not shards:
            return
        sizes = torch.tensor([len(shard["keys"]) for shard in shards])
        keys = torch.cat([self._keys, *(shard["keys"] for shard in shards)])
        slots = torch.cat([self._slots, torch.arange(int(sizes.sum())) + self._starts[-1]])
        order = keys.argsort(stable=True)
        keys, slots = keys[order], slots[order]
        first = torch.cat([torch.ones(1, dtype=torch.bool), keys[1:] != keys[:-1]])
        self._keys, self._slots = keys[first], slots[first]
        self._logits = torch.cat([self._logits, *(shard["logits"] for shard in shards)])
        self._starts = torch.cat([self._starts, self._starts[-1] + sizes.cumsum(0)])
        self._shards += shards

    def holds_enough(self, shard: dict[str, Tensor]) -> bool:
        """Whether a shard holds everything this cache needs; if not, its pairs are scored again."""
        return True


class TeacherStates(TeacherScores):
    """Log-odds and hidden states of pairs by a generative reranker, which reads each document once per block of pairs.

    Args:
        folder: of the cache; created if missing.
        teacher: the frozen reranker.
        queries: all training queries.
        documents: the corpus.
        states: whether to store hidden states beside the log-odds; both are fp32.

    Raises:
        ValueError: the folder holds states of another teacher, prompt or text.
    """

    def __init__(
        self,
        folder: Path,
        teacher: GenerativeRerankerModel,
        queries: Sequence[str],
        documents: Sequence[str],
        states: bool = True,
    ) -> None:
        self.teacher, self.states = teacher, states
        self._suffixes = TokenIdsOf(teacher.processor.query_ids, queries)
        self._prefixes = TokenIdsOf(teacher.processor.document_ids, documents)
        identity = {
            **fingerprints(teacher, queries, documents),
            "answers": f"{teacher.config.true_token_id} {teacher.config.false_token_id}",
        }
        super().__init__(folder, len(queries), self._read_pairs, identity)

    def hidden_states(self, queries: Tensor, documents: Tensor) -> Tensor:
        """The teacher's states `h_{Q|D}` of cached pairs: rows of shape `(...)` -> `(..., d)` fp32.

        Raises:
            ValueError: a pair has not been scored.
        """
        slots = self._find(queries, documents)
        states = torch.empty(*slots.shape, self._shards[0]["states"].shape[-1])
        shard_of = torch.bucketize(slots, self._starts, right=True) - 1
        for shard in shard_of.unique().tolist():
            here = shard_of == shard
            states[here] = self._shards[shard]["states"][slots[here] - self._starts[shard]].float()
        return states

    def holds_enough(self, shard: dict[str, Tensor]) -> bool:
        """Whether a shard has states, if this cache stores them."""
        return not self.states or "states" in shard

    def _read_pairs(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        asked, query_places = queries.unique(return_inverse=True)
        read, document_places = documents.unique(return_inverse=True)
        suffixes, prefixes = self._suffixes.of(asked.tolist()), self._prefixes.of(read.tolist())
        pairs = list(zip(query_places.tolist(), document_places.tolist(), strict=True))
        if not self.states:
            logits = self.teacher.map_pairs(self.teacher.log_odds, prefixes, suffixes, pairs, progress=False)
            return {"logits": logits.cpu()}
        states = self.teacher.map_pairs(lambda state: state, prefixes, suffixes, pairs, progress=False)
        return {"logits": self.teacher.log_odds(states), "states": states.float()}


def _read_shard(path: Path) -> dict[str, Tensor]:
    try:
        shard, _ = read_tensors(path)
        if len(shard["keys"]) != len(shard["logits"]):
            raise ValueError(f"{path} has scores for other pairs than its own")
    except (ValueError, KeyError) as error:
        what = fault(error) if isinstance(error, ValueError) else f"{path} is not a shard"
        raise ValueError(
            f"{what}; accepted: the shard as it was written. Delete it to have its pairs scored again"
        ) from error
    return shard


def _acquire(lock: FileLock) -> None:
    with writing(Path(lock.lock_file)):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another run that scores with this teacher ({lock.lock_file})", flush=True)
            lock.acquire()
