"""Speed at real shapes, on a GPU: teacher against student per query, encoding, and exact search of millions.

Usage:
    python -m benchmarks.search_gpu                   # on a machine with a GPU; without one it says so in the result

Backbones of the shapes of Qwen2.5-0.5B and Qwen2-7B with random weights in bf16, prefixes and suffixes of 32 tokens.
Encoding is reported as a share of the device's rate of matrix products, and exact search as a share of its memory
bandwidth, both measured in the same run. --device cpu --shapes tiny tests the script.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.results import bar, write_result
from benchmarks.teacher_scoring import BACKBONE, TextMaker, make_reranker, make_student
from benchmarks.timing import interleaved, median_ratio, milliseconds
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.recipes import BACKBONES
from modeling_rabtriever.retrieval import ExactIndex

SHAPES = {"0.5B": BACKBONES / "qwen2.5-0.5b-instruct.json", "7B": BACKBONES / "qwen2-7b-instruct.json", "tiny": None}
LENGTH, ENCODED, WIDTH = 32, 128, 256  # tokens of a prompt's sides, of an encoded document; k
FASTER = {8: 10.0, 551: 200.0}  # documents -> how many times faster the student must be than the teacher
PASSAGES, PASSAGE_WIDTH = 8_841_823, 3584  # MS MARCO's, and the paper predictor's width of a 7B backbone
MEMORY_SHARE = 0.85  # of the free memory that the vectors of exact search may take
REPEATS = 9


def seconds_of(call: Callable[[], Any], device: str, repeats: int = REPEATS) -> float:
    """Median seconds of a call, including the work on the device."""
    taken = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def synchronize(device: str) -> None:
    """Waits until the GPU has finished."""
    if device != "cpu":
        torch.cuda.synchronize()


def matrix_rate(device: str, size: int) -> float:
    """FLOP/s of a product of two square bf16 matrices."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    b = torch.randn_like(a)
    return float(2 * size**3 / seconds_of(lambda: a @ b, device))


def copy_rate(device: str, numbers: int) -> float:
    """Bytes/s read and written by a copy."""
    source = torch.ones(numbers, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return 2 * 2 * numbers / seconds_of(lambda: target.copy_(source), device)


def queries(reranker: GenerativeRerankerModel, shape: str, device: str, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per query of teacher, cached teacher and student: one row per number of documents."""
    student = make_student(reranker, WIDTH)
    texts = TextMaker(reranker.processor, random.Random(0))
    given = [texts.query(LENGTH) for _ in range(rounds + 1)]
    rows = []
    for size in FASTER:
        documents = [texts.document(LENGTH) for _ in range(size)]
        vectors, prefixes = student.encode_document(documents), reranker.prefill(documents)
        ways: dict[str, Callable[[int], Any]] = {
            "teacher": lambda n, d=documents: reranker.rank(given[n], d, top_k=8),  # its list waits for the device
            "cached teacher": lambda n, p=prefixes: reranker.score([given[n]], p).topk(8)[1].tolist(),
            "student": lambda n, v=vectors: student.similarity(student.encode_query([given[n]]), v).topk(8)[1].tolist(),
        }
        seconds = interleaved(ways, rounds)
        row = {"what": "query", "shape": shape, "documents": size, "milliseconds": milliseconds(seconds)}
        row["times_faster"] = median_ratio(seconds["teacher"], seconds["student"])
        rows.append({**row, "rounds": rounds, "device": device})
    return rows


def encoding(reranker: GenerativeRerankerModel, shape: str, device: str, documents: int, rate: float) -> dict[str, Any]:
    """Tokens per second from text to vectors, and the share of the matrix rate that these tokens' products take."""
    student = make_student(reranker, WIDTH)
    texts = TextMaker(reranker.processor, random.Random(1))
    corpus = [texts.document(ENCODED) for _ in range(documents)]
    taken = seconds_of(lambda: student.encode_document(corpus, progress=False).cpu(), device, 3)
    embeddings = student.get_input_embeddings().weight.numel()
    flops = 2 * (student.backbone.num_parameters() - embeddings) * ENCODED * documents
    speed = {"tokens_per_second": documents * ENCODED / taken, "share_of_matrix_rate": flops / taken / rate}
    return {"what": "encoding", "shape": shape, "tokens": ENCODED, "device": device, **speed}


def exact_search(device: str, given: int, width: int, bandwidth: float) -> dict[str, Any]:
    """Milliseconds of one query over as many vectors as fit, and the share of the bandwidth that reading them takes."""
    torch.cuda.empty_cache()  # of the previous models
    free = torch.cuda.mem_get_info()[0] if device != "cpu" else 1 << 30
    count = min(given, int(MEMORY_SHARE * free) // (2 * width))
    vectors = torch.empty(count, width, device=device, dtype=torch.bfloat16)
    for block in vectors.split(65536):
        block.normal_()
    index = ExactIndex(vectors, "bfloat16", device)
    found: dict[str, Any] = {"what": "exact search", "documents": count, "width": width, "device": device}
    for number in (1, 64):
        queries = torch.randn(number, width)
        found[f"milliseconds_{number}"] = 1000 * seconds_of(lambda q=queries: index.search(q, 10)[1].cpu(), device)
    read = count * width * 2 / (found["milliseconds_1"] / 1000)
    return {**found, "share_of_copy_rate": read / bandwidth}


def bars_of(rows: list[dict[str, Any]], why: str | None = None) -> list[dict[str, Any]]:
    """The student against the teacher; without a GPU, no values but the reason."""
    bars = []
    for shape in ("0.5B", "7B"):
        for size, limit in FASTER.items():
            (row,) = [r for r in rows if (r["what"], r["shape"], r["documents"]) == ("query", shape, size)] or [None]
            name = f"a query, {shape}, bf16, {size} documents: teacher / student, times faster"
            ratio, interval = row["times_faster"] if row else (None, None)
            bars.append(bar(name, ratio, ">=", limit, row["rounds"] if row else 0, interval, why))
    return bars


def measure(device: str, shapes: list[str], rounds: int, passages: int) -> list[dict[str, Any]]:
    """All rows."""
    tiny = shapes == ["tiny"]
    rate, bandwidth = matrix_rate(device, 512 if tiny else 8192), copy_rate(device, 1 << (22 if tiny else 30))
    rows: list[dict[str, Any]] = [{"what": "device", "matrix_flops": rate, "copy_bytes": bandwidth, "device": device}]
    for shape in shapes:
        path = SHAPES[shape]
        backbone = BACKBONE if path is None else json.loads(path.read_text())
        # A CPU is only for testing the script, and many compute bf16 slowly.
        reranker = make_reranker(backbone, torch.float32 if device == "cpu" else torch.bfloat16, device)
        rows += queries(reranker, shape, device, rounds)
        rows.append(encoding(reranker, shape, device, 32 if tiny else 4096, rate))
        print(rows[-3:], flush=True)
        del reranker
    rows.append(exact_search(device, passages, PASSAGE_WIDTH, bandwidth))
    return rows


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--shapes", nargs="+", default=["0.5B", "7B"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=REPEATS)
    parser.add_argument("--passages", type=int, default=PASSAGES, help="vectors of exact search, if they fit")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        why = "no GPU on the machine that ran this script; run it on one with a GPU"
        print(write_result("benchmarks.search_gpu", vars(arguments), [], bars_of([], why)))
        return
    rows = measure(arguments.device, arguments.shapes, arguments.rounds, arguments.passages)
    for row in rows:
        print(row)
    if arguments.device == "cuda":
        settings = {**vars(arguments), "name": torch.cuda.get_device_name(), "prefix": LENGTH, "suffix": LENGTH}
        print(write_result("benchmarks.search_gpu", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
