"""Shorter vectors: what the first principal axes keep, beside binary and int8 first stages with exact rescoring.

Usage:
    python -m benchmarks.search_dimensions --set household runs/data/household runs/household/student/model
    python -m benchmarks.search_dimensions --set cose path/to/cose runs/cose/student/model --set ...

Ways to search: the first 16, 32, ... numbers along the documents' principal axes (`rabtriever index --dim`); and for a
first stage that finds 100 candidates, whose whole fp32 vectors are then scored: signs (one bit per number, of
documents without their mean), int8, and the first 64 numbers. Bytes are those of the first stage per document; the
whole vectors come on top if they are scored. Queries of the test split; times are of one query, all ways taking turns.
Vectors under --runs are kept. Writes results/search_dimensions.json.
"""

import argparse
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from benchmarks.results import bar, with_earlier, write_result
from benchmarks.search_hybrid import add_sets, encoded
from benchmarks.timing import interleaved, milliseconds
from modeling_rabtriever.evaluation.metrics import query_metrics
from modeling_rabtriever.evaluation.report import Interval
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.retrieval import ExactIndex, principal_axes
from modeling_rabtriever.tasks.beir import load_beir

SMALLEST, TOP, CANDIDATES, SHORT = 16, 10, 100, 64
ROUNDS = 100
Search = Callable[[Tensor], list[list[int]]]  # queries (n, k) -> the best rows


def widths(k: int) -> list[int]:
    """16, 32, ... below `k`, and `k`."""
    found = [SMALLEST * 2**power for power in range(20) if SMALLEST * 2**power < k]
    return [*found, k]


def ways(vectors: Tensor) -> dict[str, tuple[Search, float]]:
    """Name -> the search, and the bytes of its first stage per document.

    Args:
        vectors: `(m, k)` document vectors.
    """
    k = vectors.shape[1]
    axes = principal_axes([vectors.numpy()], k)
    found: dict[str, tuple[Search, float]] = {"whole vectors": (exact(vectors), 4.0 * k)}
    for dim in widths(k):
        found[f"{dim} numbers"] = (shortened(vectors, axes[:, :dim]), 4.0 * dim)
    if k > SHORT:
        stage = shortened(vectors, axes[:, :SHORT], CANDIDATES)
        found[f"{SHORT} numbers, rescored"] = (rescored(vectors, stage), 4.0 * SHORT)
    found["int8, rescored"] = (rescored(vectors, int8_stage(vectors)), float(k))
    found["signs, rescored"] = (rescored(vectors, sign_stage(vectors)), float(-(-k // 8)))
    return found


def exact(vectors: Tensor, depth: int = TOP) -> Search:
    """The best `depth` inner products."""
    index = ExactIndex(vectors)
    return lambda queries: index.search(queries, depth)[1].tolist()


def shortened(vectors: Tensor, axes: Tensor, depth: int = TOP) -> Search:
    """The best `depth` inner products of the numbers along some axes, `(k, dim)`."""
    search = exact(vectors @ axes, depth)
    return lambda queries: search(queries @ axes)


def int8_stage(vectors: Tensor) -> Search:
    """Candidates by FAISS' 8-bit numbers."""
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors.numpy())
    index.add(vectors.numpy())
    return lambda queries: index.search(queries.numpy(), min(CANDIDATES, index.ntotal))[1].tolist()


def sign_stage(vectors: Tensor) -> Search:
    """Candidates by the number of equal signs: a query's, and a document's without the documents' mean.

    The mean adds the same to all documents' scores for a query, so it does not change a ranking.
    """
    index = faiss.IndexBinaryFlat(8 * -(-vectors.shape[1] // 8))
    index.add(signs(vectors - vectors.mean(0)))
    return lambda queries: index.search(signs(queries), min(CANDIDATES, index.ntotal))[1].tolist()


def signs(vectors: Tensor) -> Any:
    """`(n, k)` -> `(n, k / 8)` bytes."""
    return np.packbits(vectors.numpy() > 0, axis=1)


def rescored(vectors: Tensor, stage: Search) -> Search:
    """The best of a stage's candidates by their whole vectors."""

    def search(queries: Tensor) -> list[list[int]]:
        candidates = torch.tensor(stage(queries))  # (n, candidates)
        scores = torch.einsum("nk,nck->nc", queries, vectors[candidates])
        best = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
        found: list[list[int]] = candidates.gather(1, best).tolist()
        return found

    return search


def measure(name: str, data: str, model_folder: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per way."""
    task, model = load_beir(data), load_model(model_folder)
    corpus = encoded(model, task, arguments.runs / name)
    vectors = torch.from_numpy(np.concatenate([shard.vectors for shard in corpus]))
    test = task.split("test")
    queries = model.encode_query(test.queries).cpu()
    made = ways(vectors)
    truth = made["whole vectors"][0](queries)
    calls = {way: lambda number, s=search: s(queries[number % len(queries)][None]) for way, (search, _) in made.items()}
    times = milliseconds(interleaved(calls, arguments.rounds))
    rows = []
    for way, (search, size) in made.items():
        found = search(queries)
        values = query_metrics(found, test.relevant, ["success@1", "ndcg@10"])
        kept = np.array([len(set(own) & set(best)) / len(best) for own, best in zip(found, truth, strict=True)])
        figures = {metric: Interval.of(own).to_json() for metric, own in {**values, "top 10 kept": kept}.items()}
        row = {"set": name, "way": way, "documents": len(vectors), "k": vectors.shape[1], "n": len(queries)}
        rows.append({**row, "bytes": size, "milliseconds": times[way], **figures})
    return rows


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a quarter and a half of the numbers keep, and what the rescored first stages find."""
    bars = []
    for name in dict.fromkeys(row["set"] for row in rows):
        here = {row["way"]: row for row in rows if row["set"] == name}
        whole, k = here["whole vectors"], here["whole vectors"]["k"]
        for share, limit in ((4, 0.9), (2, 0.98)):
            dim = max(width for width in widths(k) if width <= k // share)
            ratio = here[f"{dim} numbers"]["success@1"]["mean"] / whole["success@1"]["mean"]
            bars.append(bar(f"R@1 with {dim} of {k} numbers / with all, {name}", ratio, ">=", limit, whole["n"]))
        for way, limit in (("int8, rescored", 0.99), ("signs, rescored", 0.95)):
            kept = here[way]["top 10 kept"]
            label = f"share of the exact top 10 found by {way}, {name}"
            bars.append(bar(label, kept["mean"], ">=", limit, whole["n"], (kept["low"], kept["high"])))
    return bars


def main() -> None:
    """Measures the sets and adds them to the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed queries per way")
    arguments = parser.parse_args()
    for name, data, model in arguments.set:
        found = measure(name, data, model, arguments)
        rows = with_earlier("benchmarks.search_dimensions", found, ("set", "way"))
        settings = {"top": TOP, "candidates": CANDIDATES, "rounds": arguments.rounds}
        settings["threads"] = torch.get_num_threads()
        print(write_result("benchmarks.search_dimensions", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
