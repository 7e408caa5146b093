"""Approximate search with FAISS: inverted lists of 8-bit vectors, and the best candidates scored again in fp32.

Chosen by measurement (docs/scale.md): it builds in seconds, it is fast, and unlike graph indexes it copes with
un-normalised inner products.
"""

import zlib
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

PROBES = 16  # lists searched per query; their number is the square root of the corpus size
REFINED = 10  # candidates scored again per document asked for
_CHECKSUM_KEY = "crc32"  # in the metadata of the file of row ids
_TRAINED_ON = 100  # vectors per list
_FEWEST = 39  # vectors per list below which FAISS warns that the clustering is meaningless


class ApproximateIndex:
    """Documents grouped by the list that their vector belongs to.

    Args:
        index: a FAISS index of inner products, refined, over inverted lists.
        row_ids: `(m,)` int64, the documents' row ids in the store, in the order of the index.
    """

    def __init__(self, index: Any, row_ids: Tensor) -> None:
        self._index, self._row_ids = index, row_ids.numpy()
        self._lists: int = faiss.extract_index_ivf(index).nlist

    @classmethod
    def build(cls, vectors: Tensor, row_ids: Tensor) -> "ApproximateIndex":
        """An index of `(m, k)` fp32 vectors; a million of them, `k = 256`, take seconds and 1.3 GB.

        Raises:
            ValueError: a number is not finite.
        """
        held = vectors.numpy()
        if not np.isfinite(held).all():
            raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
        lists = max(1, min(int(len(held) ** 0.5), len(held) // _FEWEST))
        index = faiss.index_factory(held.shape[1], f"IVF{lists},SQ8,RFlat", faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(held[:: max(1, len(held) // (_TRAINED_ON * lists))]))
        index.add(held)
        return cls(index, row_ids)

    def search(
        self, queries: Tensor, top_k: int, probes: int = PROBES, allowed: Tensor | None = None
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores, in falling order, and row ids of each query's best documents in the lists searched.

        Args:
            queries: `(n, k)`.
            top_k: documents per query; fewer come back if the lists searched hold fewer.
            probes: lists searched per query. More lists find more and take longer.
            allowed: row ids that may come back, `None` for all. All lists are then searched, since the allowed
                documents may be in any of them.

        Raises:
            ValueError: `top_k` or `probes` is below 1, or the queries have another width or hold NaN or infinity.
        """
        for name, value in (("top_k", top_k), ("probes", probes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; accepted: a whole number of at least 1")
        if queries.dim() != 2 or queries.shape[1] != self._index.d:
            raise ValueError(f"queries have shape {tuple(queries.shape)}; accepted: (queries, {self._index.d})")
        if not torch.isfinite(queries).all():
            raise ValueError("a query vector holds NaN or infinity; accepted: finite numbers")
        lists: dict[str, Any] = {"nprobe": min(probes, self._lists)}
        if allowed is not None:
            places = np.flatnonzero(np.isin(self._row_ids, allowed.numpy()))
            lists = {"nprobe": self._lists, "sel": faiss.IDSelectorBatch(places)}
        options: dict[str, Any] = {"k_factor": REFINED, "base_index_params": faiss.SearchParametersIVF(**lists)}
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
            metadata = {_CHECKSUM_KEY: _checksum(temporary, self._row_ids)}
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
                row_ids, checksum = side.get_tensor("row_ids"), (side.metadata() or {}).get(_CHECKSUM_KEY)
            if _checksum(path, row_ids.numpy()) != checksum:
                raise ValueError("it does not match its checksum")
            index = faiss.read_index(str(path))
            if index.ntotal != len(row_ids):
                raise ValueError(f"it holds {index.ntotal} vectors of {len(row_ids)} documents")
            return cls(index, row_ids)
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


def index_path(folder: Path, version: int) -> Path:
    """The FAISS file with the index of a version of a store."""
    return folder / f"approximate-{version}.faiss"


def has_index(folder: Path) -> bool:
    """Whether there is an index of any version."""
    return any(folder.glob("approximate-*.faiss"))


def _checksum(path: Path, row_ids: NDArray[np.int64]) -> str:
    found = zlib.crc32(np.ascontiguousarray(row_ids).data)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found = zlib.crc32(part, found)
    return f"{found:08x}"
