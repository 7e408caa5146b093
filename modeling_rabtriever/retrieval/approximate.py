"""Approximate search with FAISS: inverted lists of 8-bit vectors, and the best candidates scored again in fp32.

Chosen by measurement (docs/scale.md): it builds in seconds, it is fast, and unlike graph indexes it copes with
un-normalised inner products. How many lists a query needs depends on how the vectors cluster, so the index is tuned
when it is built: it searches the fewest lists with which it finds the wanted share of the exact best.
"""

import json
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import replace_file
from .exact import ExactIndex

RECALL = 0.95  # the share of the exact best documents to find, unless the user names another
TOP = 10  # how many best documents the share is measured on
SAMPLE = 256  # stored vectors that are asked for their neighbours, if no queries are given
REFINED = (10, 40)  # candidates scored again per document asked for; the second if the first does not suffice
SMALL = 16  # lists; a smaller index may be searched as a whole
_CHECKSUM_KEY, _TUNING_KEY = "crc32", "tuning"  # in the metadata of the file of row ids
_TRAINED_ON = 100  # vectors per list
_FEWEST = 39  # vectors per list, as FAISS advises


@dataclass(frozen=True)
class Tuning:
    """How an approximate index searches, and what it then finds.

    Args:
        wanted: the recall that was asked for.
        recall: the recall@10 that was measured: the mean share of the exact best ten documents that it found.
        sample: what it was measured on: `stored vectors` (each without itself among its neighbours) or `queries`.
        asked: how many of them.
        probes: lists searched per query.
        lists: lists of the index.
        refined: candidates scored again per document asked for.
    """

    wanted: float
    recall: float
    sample: str
    asked: int
    probes: int
    lists: int
    refined: int

    def __str__(self) -> str:
        return (
            f"recall@{TOP} {self.recall:.3f} on {self.asked} {self.sample}, with {self.probes} of {self.lists} lists "
            "searched"
        )


class ApproximateIndex:
    """Documents grouped by the list that their vector belongs to.

    Args:
        index: a FAISS index of inner products, refined, over inverted lists.
        row_ids: `(m,)` int64, the documents' row ids in the store, in the order of the index.
        tuning: how to search it.
    """

    def __init__(self, index: Any, row_ids: Tensor, tuning: Tuning) -> None:
        self._index, self._row_ids, self.tuning = index, row_ids.numpy(), tuning

    @classmethod
    def build(
        cls, vectors: Tensor, row_ids: Tensor, recall: float = RECALL, queries: Tensor | None = None
    ) -> "ApproximateIndex":
        """An index of `(m, k)` fp32 vectors; a million of them, `k = 256`, take seconds and 1.3 GB.

        Args:
            vectors: of the documents.
            row_ids: `(m,)`.
            recall: the share of the exact best ten documents that it must find, above 0, at most 1.
            queries: `(n, k)` to measure the recall on; `None` asks `SAMPLE` of the stored vectors.

        Raises:
            ValueError: a number is not finite, `recall` is out of range, or the index does not reach it by searching
                half of its lists. Then exact search is as fast for batches of queries.
        """
        check_recall(recall)
        held = vectors.numpy()
        if not np.isfinite(held).all():
            raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
        lists = max(1, min(int(len(held) ** 0.5), len(held) // _FEWEST))
        index = faiss.index_factory(held.shape[1], f"IVF{lists},SQ8,RFlat", faiss.METRIC_INNER_PRODUCT)
        faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1  # one list of fewer vectors: nothing to warn of
        index.train(np.ascontiguousarray(held[:: max(1, len(held) // (_TRAINED_ON * lists))]))
        index.add(held)
        places = torch.arange(len(held))
        return cls(index, row_ids, tuned(cls(index, places, _untuned(lists)), vectors, recall, queries))

    def search(
        self, queries: Tensor, top_k: int, allowed: Tensor | None = None
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores, in falling order, and row ids of each query's best documents in the lists searched.

        Args:
            queries: `(n, k)`.
            top_k: documents per query; fewer come back if the lists searched hold fewer.
            allowed: row ids that may come back, `None` for all. All lists are then searched, since the allowed
                documents may be in any of them.

        Raises:
            ValueError: `top_k` is below 1, or the queries have another width or hold NaN or infinity.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k is {top_k!r}; accepted: a whole number of at least 1")
        if queries.dim() != 2 or queries.shape[1] != self._index.d:
            raise ValueError(f"queries have shape {tuple(queries.shape)}; accepted: (queries, {self._index.d})")
        if not torch.isfinite(queries).all():
            raise ValueError("a query vector holds NaN or infinity; accepted: finite numbers")
        lists: dict[str, Any] = {"nprobe": self.tuning.probes}
        if allowed is not None:
            places = np.flatnonzero(np.isin(self._row_ids, allowed.numpy()))
            lists = {"nprobe": self.tuning.lists, "sel": faiss.IDSelectorBatch(places)}
        options: dict[str, Any] = {
            "k_factor": self.tuning.refined,
            "base_index_params": faiss.SearchParametersIVF(**lists),
        }
        parameters = faiss.IndexRefineSearchParameters(**options)
        asked = np.ascontiguousarray(queries.detach().float().cpu().numpy())
        scores, places = self._index.search(asked, min(top_k, len(self._row_ids)), params=parameters)
        found = [own >= 0 for own in places]  # FAISS fills up with -1
        return (
            [own[kept].tolist() for own, kept in zip(scores, found, strict=True)],
            [self._row_ids[own[kept]].tolist() for own, kept in zip(places, found, strict=True)],
        )

    def save(self, folder: Path, version: int) -> None:
        """Writes the index of a version of a store: a file of FAISS, and beside it row ids and a checksum of both.

        Raises:
            OSError: it cannot be written.
        """
        path = index_path(folder, version)

        def write(temporary: Path) -> None:
            try:
                faiss.write_index(self._index, str(temporary))
            except RuntimeError as error:
                raise OSError(f"{path} cannot be written ({str(error).rpartition('failed: ')[2]})") from error
            held = {"row_ids": torch.from_numpy(self._row_ids)}
            tuning = json.dumps(asdict(self.tuning))
            metadata = {_CHECKSUM_KEY: _checksum(temporary, self._row_ids, tuning), _TUNING_KEY: tuning}
            replace_file(path.with_suffix(".safetensors"), lambda beside: save_file(held, beside, metadata))

        replace_file(path, write)

    @classmethod
    def load(cls, folder: Path, version: int) -> "ApproximateIndex":
        """Reads what `save` wrote. FAISS only opens the file if its checksum is right.

        Raises:
            ValueError: there is no index of this version, or it is broken.
        """
        path = index_path(folder, version)
        try:
            with safe_open(path.with_suffix(".safetensors"), "pt") as side:
                row_ids, metadata = side.get_tensor("row_ids"), side.metadata() or {}
            tuning = metadata.get(_TUNING_KEY, "")
            if _checksum(path, row_ids.numpy(), tuning) != metadata.get(_CHECKSUM_KEY):
                raise ValueError("it does not match its checksum")
            if not tuning:
                raise ValueError("an older version of this package made it, which did not measure its recall")
            index = faiss.read_index(str(path))
            if index.ntotal != len(row_ids):
                raise ValueError(f"it holds {index.ntotal} vectors of {len(row_ids)} documents")
            return cls(index, row_ids, Tuning(**json.loads(tuning)))
        except FileNotFoundError:
            state = "an approximate index of another version" if has_index(folder) else "no approximate index"
            raise ValueError(
                f"{folder} has {state}; accepted: one of this version, which build_index (rabtriever index "
                "--approximate) makes"
            ) from None
        except Exception as error:  # safetensors and FAISS raise many kinds of errors for a broken file
            raise ValueError(
                f"{path} is broken ({error}); accepted: a whole one, which build_index (rabtriever index "
                "--approximate) makes"
            ) from error


def check_recall(recall: float) -> None:
    """Raises a ValueError if this is no recall that an index can be tuned to."""
    if isinstance(recall, bool) or not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise ValueError(f"recall is {recall!r}; accepted: a number above 0, at most 1")


def tuned(index: ApproximateIndex, vectors: Tensor, recall: float, queries: Tensor | None) -> Tuning:
    """The fewest lists with which an index reaches a recall, by doubling their number, then halving the interval.

    Args:
        index: with the places of the vectors as row ids.
        vectors: `(m, k)` of the documents.
        recall: the share of the exact best ten documents to find.
        queries: `(n, k)`, or `None` for stored vectors.

    Raises:
        ValueError: it is not reached with half of the lists.
    """
    m, lists = len(vectors), index.tuning.lists
    own: list[set[int]] = [set() for _ in range(0 if queries is None else len(queries))]
    if queries is None:
        rows = np.unique(np.linspace(0, m - 1, min(SAMPLE, m)).astype(np.int64))
        queries, own = vectors[torch.from_numpy(rows)], [{row} for row in rows.tolist()]
    top = TOP + (1 if any(own) else 0)
    best = [set(places) - mine for places, mine in zip(_exact(vectors, queries, top), own, strict=True)]
    sample = "stored vectors" if any(own) else "queries"

    def measured(probes: int, refined: int) -> Tuning:
        index.tuning = Tuning(recall, 0.0, sample, len(best), probes, lists, refined)
        found = index.search(queries, top)[1]
        shares = [len(wanted & set(got)) / len(wanted) for wanted, got in zip(best, found, strict=True) if wanted]
        return Tuning(**{**asdict(index.tuning), "recall": float(np.mean(shares)) if shares else 1.0})

    most = lists if lists <= SMALL else lists // 2
    for refined in REFINED:
        fewer, probes = 0, 1
        while (reached := measured(probes, refined)).recall < recall and probes < most:
            fewer, probes = probes, min(2 * probes, most)
        if reached.recall < recall:
            continue
        while probes - fewer > 1:
            middle = measured((fewer + probes) // 2, refined)
            if middle.recall >= recall:
                probes, reached = middle.probes, middle
            else:
                fewer = middle.probes
        return reached
    raise ValueError(
        f"an approximate index of these {m} vectors has a recall@{TOP} of {reached.recall:.3f}, not {recall}, when it "
        f"searches {most} of its {lists} lists, the most that it may; accepted: a lower recall, or exact search"
    )


def _exact(vectors: Tensor, queries: Tensor, top: int) -> list[list[int]]:
    found: list[list[int]] = ExactIndex(vectors).search(queries, top)[1].tolist()
    return found


def _untuned(lists: int) -> Tuning:
    return Tuning(RECALL, 0.0, "queries", 0, 1, lists, REFINED[0])


def index_path(folder: Path, version: int) -> Path:
    """The FAISS file with the index of a version of a store."""
    return folder / f"approximate-{version}.faiss"


def has_index(folder: Path) -> bool:
    """Whether there is an index of any version."""
    return any(folder.glob("approximate-*.faiss"))


def wanted_recall(folder: Path) -> float:
    """The recall that the index of any version was tuned to; `RECALL` if none says."""
    for path in sorted(folder.glob("approximate-*.safetensors")):
        with suppress(Exception), safe_open(path, "pt") as side:  # a broken file, or one of an older version
            wanted = json.loads((side.metadata() or {})[_TUNING_KEY])["wanted"]
            check_recall(wanted)
            return float(wanted)
    return RECALL


def _checksum(path: Path, row_ids: NDArray[np.int64], tuning: str) -> str:
    found = zlib.crc32(tuning.encode(), zlib.crc32(np.ascontiguousarray(row_ids).data))
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found = zlib.crc32(part, found)
    return f"{found:08x}"
