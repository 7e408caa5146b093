"""The cache of what the frozen teacher knows: features of all texts, and `h_{Q|D}` of every pair it was asked about.

A pair is asked once and memoised on disk, in safetensors shards written atomically. A killed run loses at most the
shard in work; the next one asks only for what is missing. The folder carries a fingerprint of teacher, prompt and
texts, and a cache that belongs to others is refused.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.files import read_tensors, write_json, write_tensors

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
        check_fingerprint(folder, identity)
        self._keys = torch.empty(0, dtype=torch.long)  # sorted; one number per pair
        self._slots = torch.empty(0, dtype=torch.long)  # where in the joined shards the pair of that key lies
        self._logits = torch.empty(0)
        self._shards: list[dict[str, Tensor]] = []  # memory-mapped
        self._starts = torch.zeros(1, dtype=torch.long)
        for path in sorted(folder.glob("pairs-*.safetensors")):
            self._open(path)

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
        missing = self._key(queries, documents).unique()
        missing = missing[~torch.isin(missing, self._keys)]
        if not len(missing):
            return 0
        with tqdm(
            total=len(missing), desc="asking the teacher", unit="pair", disable=len(missing) < SHARD_PAIRS
        ) as bar:
            for keys in missing.split(SHARD_PAIRS):
                found = self.judge(keys % self.query_count, keys // self.query_count)
                if not torch.isfinite(found["logits"]).all():
                    raise ValueError("the teacher's scores hold NaN or infinity; accepted: finite scores")
                path = self.folder / f"pairs-{len(self._shards):06d}.safetensors"
                write_tensors(path, {"keys": keys, **found})
                self._open(path)
                bar.update(len(keys))
        return len(missing)

    def logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        """The teacher's scores of asked pairs: two tensors of rows of any equal shape -> that shape, fp32.

        Raises:
            ValueError: a pair was never asked.
        """
        return self._logits[self._find(queries, documents)]

    def _key(self, queries: Tensor, documents: Tensor) -> Tensor:
        return documents * self.query_count + queries

    def _find(self, queries: Tensor, documents: Tensor) -> Tensor:
        keys = self._key(queries, documents)
        places = torch.searchsorted(self._keys, keys).clamp(max=max(len(self._keys) - 1, 0))
        if not len(self._keys) or not torch.equal(self._keys[places], keys):
            raise ValueError("the teacher was never asked about some of these pairs; ask() them first")
        return self._slots[places]

    def _open(self, path: Path) -> None:
        shard, _ = read_tensors(path)  # states stay memory-mapped until rows are read
        slots = torch.arange(len(shard["keys"])) + self._starts[-1]
        keys, slots = torch.cat([self._keys, shard["keys"]]), torch.cat([self._slots, slots])
        order = keys.argsort()
        self._keys, self._slots = keys[order], slots[order]
        self._logits = torch.cat([self._logits, shard["logits"]])
        self._shards.append(shard)
        self._starts = torch.cat([self._starts, self._starts[-1:] + len(shard["keys"])])


class TeacherStates(TeacherScores):
    """States and log-odds of asked pairs by a generative reranker, each document read once per block of pairs.

    Args:
        folder: where the cache lives; created if missing.
        teacher: the frozen reranker.
        queries: all queries pairs may be asked about.
        documents: the corpus.
        dtype: of the stored states; log-odds are always fp32.

    Raises:
        ValueError: the folder holds states of another teacher, prompt, text or dtype.
    """

    def __init__(
        self,
        folder: Path,
        teacher: GenerativeRerankerModel,
        queries: Sequence[str],
        documents: Sequence[str],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.teacher, self.dtype = teacher, dtype
        self._suffixes = teacher.processor.query_ids(queries)
        self._prefixes = teacher.processor.document_ids(documents)
        identity = {"states": fingerprint(teacher, queries, documents), "dtype": str(dtype)}
        super().__init__(folder, len(queries), self._states_and_log_odds, identity)

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

    def _states_and_log_odds(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        pairs = list(zip(queries.tolist(), documents.tolist(), strict=True))
        states = self.teacher.map_pairs(lambda read: read, self._prefixes, self._suffixes, pairs, progress=False)
        return {"logits": self.teacher.log_odds(states), "states": states.to(self.dtype)}


def cached_features(
    folder: Path, name: str, student: RabtrieverModel, compute: Callable[[Sequence[str]], Tensor], texts: Sequence[str]
) -> Tensor:
    """Features of all texts of one side, read from `folder` or computed once: `(len(texts), ...)` fp32, CPU.

    Args:
        folder: the cache.
        name: `"documents"`, `"queries-train"`, ...
        student: whose features; layers, poolings, anchors and whether words are read are part of the cache's identity.
        compute: `student.document_features` or `student.query_features`.
        texts: the texts of that side.
    """
    config = student.config
    recipe = {"layers": config.feature_layers, "poolings": config.feature_poolings}
    recipe |= {"words": True} if config.shared_dim else {}
    recipe |= {"query_anchors": config.query_anchors} if config.query_anchors else {}
    recipe |= {"document_log_odds": config.document_anchors} if config.document_anchors else {}
    identity = fingerprint(student, texts, [name, json.dumps(recipe)])
    path = folder / f"features-{name}-{identity}.safetensors"
    if not path.exists():
        write_tensors(path, {"features": compute(texts)})
    return read_tensors(path)[0]["features"]


def fingerprint(model: GenerativeRerankerModel | RabtrieverModel, *texts: Sequence[str]) -> str:
    """A digest of the backbone's weights, the prompt, the tokenizer and the texts."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.backbone.base_model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
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
    found = json.loads(path.read_text())
    if found != identity:
        raise ValueError(
            f"{folder} holds states of another teacher, prompt, task or dtype ({found}); this run needs {identity}. "
            "Delete the folder or choose another one"
        )
