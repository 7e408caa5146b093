"""The cache of what the teacher knows: log-odds of every pair it was asked about, and its states.

A pair is asked once and memoised on disk, in safetensors shards written atomically. A killed run loses at most the
shard in work; the next one asks only for what is missing. The processes of a run divide the pairs, and runs that share
a folder ask one after the other, each only for what the others have not. The folder carries a fingerprint of teacher,
prompt and texts, and a cache that belongs to others is refused.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from .. import GenerativeRerankerModel, RabtrieverModel
from ..files import read_record, read_tensors, write_json, write_tensors, writing
from ..identity import backbone_settings
from ..trainers.processes import gather, is_main, on_each, on_main, own_part

SHARD_PAIRS = 2048


class TeacherScores:
    """Scores of asked (query, document) pairs by any scorer.

    Args:
        folder: where the cache lives; created if missing.
        query_count: how many queries pairs may be asked about; a pair names one by its row.
        judge: rows of queries and of documents, `(p,)` int64 each, sorted by document -> what is stored of these pairs:
            `logits` `(p,)` fp32, and `states` if the scorer has any.
        identity: what the scores belong to: scorer and texts.

    Raises:
        ValueError: the folder holds the scores of something else.
    """

    def __init__(
        self,
        folder: Path,
        query_count: int,
        judge: Callable[[Tensor, Tensor], dict[str, Tensor]],
        identity: dict[str, str],
    ) -> None:
        self.folder, self.query_count, self.judge = folder, query_count, judge
        on_main(lambda: check_fingerprint(folder, identity))
        self._keys = torch.empty(0, dtype=torch.long)  # sorted; one number per pair
        self._slots = torch.empty(0, dtype=torch.long)  # where in the joined shards the pair of that key lies
        self._logits = torch.empty(0)
        self._shards: list[dict[str, Tensor]] = []  # memory-mapped
        self._starts = torch.zeros(1, dtype=torch.long)
        self._opened: set[Path] = set()
        on_each(self._open_shards)

    def __len__(self) -> int:
        """Number of pairs asked so far: the teacher's bill."""
        return len(self._keys)

    @torch.no_grad()
    def ask(self, queries: Tensor, documents: Tensor) -> int:
        """Runs the teacher on the pairs not asked before, and stores what it says.

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
        lock = FileLock(self.folder / "asking.lock")
        on_main(lambda: _acquire(lock))
        try:
            on_each(self._open_shards)  # what another run has asked meanwhile
            missing = on_main(lambda: self._missing(wanted))
            written = gather(on_each(lambda: self._judge(own_part(missing))))
            on_each(lambda: self._open_shards(*(path for paths in written for path in paths)))
        finally:
            lock.release()
        return len(missing)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The pairs asked so far: rows of queries and of documents, int64, sorted by document."""
        return self._keys % self.query_count, self._keys // self.query_count

    def logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        """The teacher's scores of asked pairs: two tensors of rows of any equal shape -> that shape, fp32.

        Raises:
            ValueError: a pair was never asked.
        """
        return self._logits[self._find(queries, documents)]

    def _missing(self, keys: Tensor) -> Tensor:
        return keys[~torch.isin(keys, self._keys)]

    def _judge(self, missing: Tensor) -> list[Path]:
        written = []
        quiet = len(missing) < SHARD_PAIRS or not is_main()
        with tqdm(total=len(missing), desc="asking the teacher", unit="pair", disable=quiet) as bar:
            for keys in missing.split(SHARD_PAIRS) if len(missing) else ():
                found = self.judge(keys % self.query_count, keys // self.query_count)
                if not torch.isfinite(found["logits"]).all():
                    raise ValueError("the teacher's scores hold NaN or infinity; accepted: finite scores")
                # A name of its own: other processes and other runs write into the same folder.
                written.append(self.folder / f"pairs-{uuid.uuid4().hex}.safetensors")
                write_tensors(written[-1], {"keys": keys, **found})
                bar.update(len(keys))
        return written

    def _key(self, queries: Tensor, documents: Tensor) -> Tensor:
        return documents * self.query_count + queries

    def _find(self, queries: Tensor, documents: Tensor) -> Tensor:
        keys = self._key(queries, documents)
        places = torch.searchsorted(self._keys, keys).clamp(max=max(len(self._keys) - 1, 0))
        if not len(self._keys) or not torch.equal(self._keys[places], keys):
            raise ValueError("the teacher was never asked about some of these pairs; ask() them first")
        return self._slots[places]

    def _open_shards(self, *named: Path) -> None:
        """Opens the shards that are new, whoever wrote them; of a pair that stands in two, the first counts.

        Those `named` are opened even if a network's file system does not list them yet.
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
        """Whether a shard says all of its pairs that this cache is asked for; if not, they are asked again."""
        return True


class TeacherStates(TeacherScores):
    """States and log-odds of asked pairs by a generative reranker, each document read once per block of pairs.

    Args:
        folder: where the cache lives; created if missing.
        teacher: the frozen reranker.
        queries: all queries pairs may be asked about.
        documents: the corpus.
        states: whether states are stored beside the log-odds; both are fp32.

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
        self._suffixes = teacher.processor.query_ids(queries)
        self._prefixes = teacher.processor.document_ids(documents)
        identity = {"states": fingerprint(teacher, queries, documents)}
        super().__init__(folder, len(queries), self._read_pairs, identity)

    def hidden_states(self, queries: Tensor, documents: Tensor) -> Tensor:
        """The teacher's states `h_{Q|D}` of asked pairs: rows of shape `(...)` -> `(..., d)` fp32.

        Raises:
            ValueError: a pair was never asked.
        """
        slots = self._find(queries, documents)
        states = torch.empty(*slots.shape, self._shards[0]["states"].shape[-1])
        shard_of = torch.bucketize(slots, self._starts, right=True) - 1
        for shard in shard_of.unique().tolist():
            here = shard_of == shard
            states[here] = self._shards[shard]["states"][slots[here] - self._starts[shard]].float()
        return states

    def holds_enough(self, shard: dict[str, Tensor]) -> bool:
        """Whether a shard has states, if they are wanted."""
        return not self.states or "states" in shard

    def _read_pairs(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        pairs = list(zip(queries.tolist(), documents.tolist(), strict=True))
        if not self.states:
            asked = self._prefixes, self._suffixes, pairs
            return {"logits": self.teacher.map_pairs(self.teacher.log_odds, *asked, progress=False).cpu()}
        states = self.teacher.map_pairs(lambda read: read, self._prefixes, self._suffixes, pairs, progress=False)
        return {"logits": self.teacher.log_odds(states), "states": states.float()}


def _read_shard(path: Path) -> dict[str, Tensor]:
    try:
        shard, _ = read_tensors(path)
        if len(shard["keys"]) != len(shard["logits"]):
            raise ValueError(f"{path} has scores for other pairs than its own")
    except (ValueError, KeyError) as error:
        fault = str(error).partition("; accepted")[0] if isinstance(error, ValueError) else f"{path} is no shard"
        raise ValueError(
            f"{fault}; accepted: the shard as it was written. Delete it, and its pairs alone are asked again"
        ) from error
    return shard


def _acquire(lock: FileLock) -> None:
    with writing(Path(lock.lock_file)):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another run asks this teacher ({lock.lock_file}); what it asks need not be asked twice", flush=True)
            lock.acquire()


def fingerprint(model: GenerativeRerankerModel | RabtrieverModel, *texts: Sequence[str]) -> str:
    """A digest of the backbone's settings and weights, answer rows if it has any, prompt, tokenizer and texts."""
    digest = hashlib.sha256(backbone_settings(model.config.text_config).encode())
    for name, weights in sorted(model.backbone.base_model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(model, GenerativeRerankerModel):
        digest.update(model.answer_rows.detach().cpu().numpy().tobytes())
    prompt = {name: value for name, value in model.processor.to_dict().items() if name != "auto_map"}
    digest.update(json.dumps(prompt, sort_keys=True).encode())
    digest.update(model.processor.tokenizer.backend_tokenizer.to_str().encode())
    for group in texts:
        for text in group:
            digest.update(text.encode() + b"\0")
        digest.update(b"\1")
    return digest.hexdigest()[:16]


def check_fingerprint(folder: Path, identity: dict[str, str]) -> None:
    """Marks a new cache folder as belonging to `identity`, or compares.

    Raises:
        ValueError: the folder belongs to something else.
    """
    path = folder / "fingerprint.json"
    if not path.exists():
        write_json(path, identity)
        return
    found = read_record(path)
    if found != identity:
        raise ValueError(
            f"{folder} holds states of another teacher, prompt or task ({found}); this run needs {identity}. "
            "Delete the folder or choose another one"
        )
