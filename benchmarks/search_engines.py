"""The engines that `benchmarks.search_stores` compares, with one interface."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import torch
from lancedb.index import HnswSq, IvfPq, IvfSq
from numpy.typing import NDArray
from usearch.index import Index

from modeling_rabtriever.retrieval import ExactIndex

TOP = 10
REFINED = 100  # candidates per document wanted that are scored exactly after a quantised search
Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def engines(vectors: NDArray[np.float32], names: list[str], folder: Path) -> dict[str, tuple[Any, float, float]]:
    """Name -> (search with an effort, seconds to build, bytes in memory)."""
    m, k = vectors.shape
    held = torch.from_numpy(vectors)
    makers: dict[str, Callable[[], tuple[Any, float]]] = {
        "ours fp32": lambda: (_ours(ExactIndex(held)), m * k * 4),
        "ours fp16": lambda: (_ours(ExactIndex(held, "float16")), m * k * 2),
        "ours bf16": lambda: (_ours(ExactIndex(held, "bfloat16")), m * k * 2),
        "torch fp32": lambda: (_torch(held), m * k * 4),
        "torch fp16": lambda: (_torch(held.half()), m * k * 2),
        "torch bf16": lambda: (_torch(held.bfloat16()), m * k * 2),
        "numpy fp32": lambda: (_numpy(vectors), m * k * 4),
        "FAISS flat": lambda: _faiss(faiss.IndexFlatIP(k), vectors, ""),
        "FAISS fp16": lambda: _faiss(
            faiss.IndexScalarQuantizer(k, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT), vectors, ""
        ),
        "FAISS int8": lambda: _faiss(
            faiss.IndexScalarQuantizer(k, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT), vectors, ""
        ),
        "FAISS IVF-PQ": lambda: _faiss(
            faiss.index_factory(k, f"IVF{int(m**0.5)},PQ64x8,RFlat", faiss.METRIC_INNER_PRODUCT), vectors, "nprobe"
        ),
        "FAISS IVF-SQ8": lambda: _faiss(
            faiss.index_factory(k, f"IVF{int(m**0.5)},SQ8,RFlat", faiss.METRIC_INNER_PRODUCT), vectors, "nprobe"
        ),
        "FAISS HNSW": lambda: _faiss(faiss.IndexHNSWFlat(k, 32, faiss.METRIC_INNER_PRODUCT), vectors, "efSearch"),
        "USearch bf16": lambda: _usearch(vectors),
        "LanceDB flat": lambda: _lance(vectors, folder / "flat", None),
        "LanceDB IVF_SQ": lambda: _lance(vectors, folder / "sq", IvfSq(distance_type="dot")),
        "LanceDB IVF_PQ": lambda: _lance(vectors, folder / "pq", IvfPq(distance_type="dot", num_sub_vectors=64)),
        "LanceDB IVF_HNSW_SQ": lambda: _lance(vectors, folder / "hnsw", HnswSq(distance_type="dot")),
    }
    found = {}
    for name in names:
        start = time.perf_counter()
        search, size = makers[name]()
        found[name] = (search, time.perf_counter() - start, size)
        print(f"{name}: built in {found[name][1]:.0f} s", flush=True)
    return found


def _ours(index: ExactIndex) -> Any:
    return lambda _: lambda queries: index.search(torch.from_numpy(queries), TOP)[1].numpy()


def _torch(held: torch.Tensor) -> Any:
    return lambda _: lambda queries: (torch.from_numpy(queries).to(held.dtype) @ held.T).float().topk(TOP)[1].numpy()


def _numpy(vectors: NDArray[np.float32]) -> Any:
    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -TOP, axis=1)[:, -TOP:]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    return lambda _: search


def _faiss(index: Any, vectors: NDArray[np.float32], effort_name: str) -> tuple[Any, float]:
    index.train(vectors[:: max(1, len(vectors) // 100_000)])
    index.add(vectors)

    def at(effort: int) -> Search:
        if effort_name == "nprobe":
            index.k_factor = REFINED
            faiss.extract_index_ivf(index).nprobe = effort
        elif effort_name:
            index.hnsw.efSearch = effort
        return lambda queries: index.search(queries, TOP)[1]

    return at, float(faiss.serialize_index(index).nbytes)


def _usearch(vectors: NDArray[np.float32]) -> tuple[Any, float]:
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16")
    index.add(np.arange(len(vectors)), vectors, threads=torch.get_num_threads())

    def at(effort: int) -> Search:
        index.expansion_search = effort

        def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
            found = index.search(queries, TOP, threads=torch.get_num_threads()).keys
            return np.asarray(found, dtype=np.int64).reshape(len(queries), -1)

        return search

    return at, float(index.memory_usage)


def _lance(vectors: NDArray[np.float32], folder: Path, config: Any) -> tuple[Any, float]:
    arrays = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = lancedb.connect(folder).create_table("t", pa.table({"id": np.arange(len(vectors)), "vector": arrays}))
    if config is not None:
        table.create_index("vector", config=config)

    def at(effort: int) -> Search:
        def one(query: NDArray[np.float32]) -> list[int]:
            search: Any = table.search(query, vector_column_name="vector").distance_type("dot").limit(TOP)
            if config is None:
                search = search.bypass_vector_index()
            else:
                search = search.nprobes(effort).refine_factor(REFINED)
                search = search.ef(max(effort, 10 * TOP)) if isinstance(config, HnswSq) else search
            return search.select(["id"]).to_arrow()["id"].to_pylist()

        return lambda queries: np.array([one(query) for query in queries])

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return at, float(size)
