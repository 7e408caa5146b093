"""Exact and approximate search by several engines, on real vectors: queries and documents of a student.

Usage:
    python -m benchmarks.search_stores --model runs/household/student/model --data runs/household/data/household
    python -m benchmarks.search_stores --model ... --data ... --sizes 1000000 --engines "FAISS HNSW"

The corpus is augmented: document vectors of the task plus noise with a tenth of their covariance, so that neighbours
are as dense as in a large corpus of the same kind. Queries are the task's test queries. Every engine searches the same
queries in turn, round by round; figures are medians over rounds. Writes results/search_stores.json and .png.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from benchmarks.results import FOLDER, bar, with_earlier, write_result
from benchmarks.search_engines import TOP, Search, engines
from benchmarks.search_gpu import copy_rate
from modeling_rabtriever.retrieval import ExactIndex
from modeling_rabtriever.tasks.beir import load_beir

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BATCH = 64
RECALL_QUERIES, CHECKED = 128, 4  # queries to measure recall on, and to check exact engines on
PATIENCE, FEWEST = 20.0, 3  # seconds of timing per engine and batch size, and the least number of rounds
EXACT = (
    "ours fp32", "ours fp16", "ours bf16", "torch fp32", "torch fp16", "torch bf16", "numpy fp32", "FAISS flat",
    "FAISS fp16",
)  # fmt: skip
OTHERS = ("FAISS int8", "LanceDB flat")
# Engines that search exactly, by precision.
RIVALS = {
    "fp32": ("torch fp32", "numpy fp32", "FAISS flat"),
    "fp16": ("torch fp16", "FAISS fp16"),
    "bf16": ("torch bf16",),
}
APPROXIMATE = (
    "FAISS IVF-SQ8", "FAISS IVF-PQ", "FAISS HNSW", "USearch bf16", "LanceDB IVF_SQ", "LanceDB IVF_PQ",
    "LanceDB IVF_HNSW_SQ",
)  # fmt: skip
EFFORTS = (4, 8, 16, 32, 64, 128, 256, 512)  # nprobe or ef, raised until recall is reached
RECALL = 0.95


def augmented(model_folder: str, data: str, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`(size, k)` document vectors and the test queries' vectors."""
    model, task = AutoModel.from_pretrained(model_folder).eval(), load_beir(data)
    documents = model.encode_document(task.corpus).numpy()
    queries = model.encode_query(task.split("test").queries[:512]).numpy()
    rng = np.random.default_rng(0)
    values, axes = np.linalg.eigh(np.cov(documents.T))
    spread = (axes * np.sqrt(np.clip(values, 0, None) * 0.1)).T.astype(np.float32)
    out = np.empty((size, documents.shape[1]), dtype=np.float32)
    for first in range(0, size, 50_000):
        rows = slice(first, min(first + 50_000, size))
        count = rows.stop - first
        noise = rng.standard_normal((count, len(spread)), dtype=np.float32) @ spread
        out[rows] = documents[rng.integers(len(documents), size=count)] + noise
    return out, queries


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the exact top that was found."""
    return float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def measure(size: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per engine."""
    vectors, queries = augmented(arguments.model, arguments.data, size)
    truth = ExactIndex(torch.from_numpy(vectors)).search(torch.from_numpy(queries[:RECALL_QUERIES]), TOP)[1].numpy()
    names = list(dict.fromkeys([*EXACT, *arguments.engines]))
    with tempfile.TemporaryDirectory() as folder:
        built = engines(vectors, names, Path(folder))
        chosen: dict[str, tuple[Search, int, float]] = {}
        for name, (at, _, _) in built.items():
            checked = queries[: RECALL_QUERIES if name in APPROXIMATE else CHECKED]
            efforts = EFFORTS if name in APPROXIMATE else (0,)
            for effort in efforts:
                chosen[name] = (at(effort), effort, recall(at(effort)(checked), truth[: len(checked)]))
                if chosen[name][2] >= RECALL:
                    break
        seconds: dict[str, dict[int, list[float]]] = {name: {1: [], BATCH: []} for name in names}
        for round_ in range(arguments.rounds):
            for count in (1, BATCH):
                first = (round_ * count) % (len(queries) - count)
                batch = np.ascontiguousarray(queries[first : first + count])
                for name in names:
                    if round_ >= FEWEST and sum(seconds[name][count]) > PATIENCE:
                        continue
                    search = built[name][0](chosen[name][1])
                    time.sleep(0.05)  # until the threads of the previous engine have stopped waiting for work
                    search(batch[:1])
                    start = time.perf_counter()
                    search(batch)
                    seconds[name][count].append(time.perf_counter() - start)
    bandwidth = copy_rate("cpu", 1 << 28) / 1e9
    return [
        {
            "documents": size,
            "k": vectors.shape[1],
            "engine": name,
            "one_query_ms": 1e3 * statistics.median(seconds[name][1]),
            "batch_ms": 1e3 * statistics.median(seconds[name][BATCH]),
            "recall": chosen[name][2],
            "effort": chosen[name][1],
            "build_seconds": built[name][1],
            "bytes": built[name][2],
            "gb_per_second": built[name][2] / statistics.median(seconds[name][1]) / 1e9
            if name not in APPROXIMATE
            else None,
            "copy_gb_per_second": bandwidth,
            "rounds": len(seconds[name][1]),
            "batch_rounds": len(seconds[name][BATCH]),
            "threads": torch.get_num_threads(),
        }
        for name in names
    ]


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against the fastest exact engine at the same precision; the best approximate one against exact."""
    bars = []
    for size in sorted({row["documents"] for row in rows}):
        here = {row["engine"]: row for row in rows if row["documents"] == size}
        for kind, label in (("one_query_ms", "one query"), ("batch_ms", f"{BATCH} queries")):
            for precision, rivals in RIVALS.items():
                best = min(here[name][kind] for name in rivals)
                name = f"exact top-{TOP} of {size:,}, {label}, {precision}: ours / the fastest of {', '.join(rivals)}"
                bars.append(bar(name, here[f"ours {precision}"][kind] / best, "<=", 1.2, here["ours fp32"]["rounds"]))
        near = [row for name, row in here.items() if name in APPROXIMATE and row["recall"] >= RECALL]
        if near:
            best = min(near, key=lambda row: row["one_query_ms"])
            ratio = here["ours fp32"]["one_query_ms"] / best["one_query_ms"]
            name = (
                f"{best['engine']} at recall@10 {best['recall']:.3f} against exact, {size:,}, one query, times faster"
            )
            bars.append(bar(name, ratio, ">=", 10, best["rounds"]))
    return bars


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds per query of every engine, with its recall, of the largest corpus."""
    size = max(row["documents"] for row in rows)
    here = sorted((row for row in rows if row["documents"] == size), key=lambda row: -row["one_query_ms"])
    figure, panel = plt.subplots(figsize=(7, 5.4), layout="constrained")
    colors = ["C0" if row["engine"].startswith("ours") else "0.7" for row in here]
    bars = panel.barh([row["engine"] for row in here], [row["one_query_ms"] for row in here], color=colors)
    labels = [f" {row['one_query_ms']:,.1f} ms, recall {row['recall']:.3f}" for row in here]
    panel.bar_label(bars, labels, fontsize="small")
    panel.set(xscale="log", xlabel="ms, one query", xlim=(0.2, 300 * here[0]["one_query_ms"]))
    panel.set_title(f"{size:,} x {here[0]['k']}, {here[0]['threads']} threads")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a student")
    parser.add_argument("--data", required=True, help="folder in BEIR layout that it was distilled on")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 1_000_000])
    every = [*EXACT, *OTHERS, *APPROXIMATE]
    parser.add_argument(
        "--engines", nargs="+", default=every, choices=every, help="exact engines other than LanceDB's always run"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    for size in arguments.sizes:
        rows = with_earlier("benchmarks.search_stores", measure(size, arguments), ("documents", "engine"))
        settings = {"top": TOP, "batch": BATCH, "recall": RECALL, "efforts": EFFORTS, "noise": 0.1}
        plot(rows, FOLDER / "search_stores.png")
        print(write_result("benchmarks.search_stores", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
