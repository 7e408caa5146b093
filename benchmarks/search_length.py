"""Cost against the length of the documents (the paper's Figure 4): constant for a query, proportional for encoding.

Usage:
    python -m benchmarks.search_length                # five minutes on two cores

The random backbone of benchmarks.teacher_scoring. Offline: encoding a document of 16 to 512 tokens. Online: one query
of 32 tokens against 64 documents of that length, by Rabtriever (with encoded documents), by the teacher with cached
prefixes, and by the teacher. All lengths take turns. Writes results/search_length.json and .png.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks.results import FOLDER, bar, write_result
from benchmarks.teacher_scoring import BACKBONE, SUFFIX, TextMaker, make_reranker, make_student
from benchmarks.timing import interleaved, median_ratio, milliseconds

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LENGTHS = (16, 32, 64, 128, 256, 512)
DOCUMENTS, WIDTH = 64, 256
LABELS = {
    "offline": "encoding a document, once",
    "Rabtriever": f"a query, {DOCUMENTS} documents: Rabtriever",
    "cached teacher": "teacher, cached prefixes",
    "teacher": "teacher, full pass",
}


def ways(reranker: Any, rounds: int) -> dict[str, dict[int, Callable[[int], Any]]]:
    """Kind of work -> length -> one call."""
    student = make_student(reranker, WIDTH)
    texts = TextMaker(reranker.processor, random.Random(0))
    queries = [texts.query(SUFFIX) for _ in range(rounds + 1)]
    found: dict[str, dict[int, Callable[[int], Any]]] = {name: {} for name in LABELS}
    for length in LENGTHS:
        documents = [texts.document(length) for _ in range(DOCUMENTS)]
        vectors, prefixes = student.encode_document(documents), reranker.prefill(documents)
        found["offline"][length] = lambda _, d=documents: student.encode_document(d)
        found["Rabtriever"][length] = lambda n, v=vectors: student.similarity(student.encode_query([queries[n]]), v)
        found["cached teacher"][length] = lambda n, p=prefixes: reranker.score([queries[n]], p)
        found["teacher"][length] = lambda n, d=documents: reranker.rank(queries[n], d)
    return found


def plot(times: dict[str, Sequence[float]], path: Path) -> None:
    """Milliseconds against tokens."""
    figure, panel = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, label in LABELS.items():
        panel.plot(LENGTHS, times[name], marker="o", label=label)
    panel.set(xscale="log", yscale="log", xlabel="tokens of a document", ylabel="ms")
    panel.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    panel.minorticks_off()
    panel.legend(frameon=False, fontsize="small")
    panel.set_title("Cost against the length of the documents")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds: dict[str, dict[int, list[float]]] = {}
    for name, by_length in ways(make_reranker(), 10 * arguments.rounds).items():
        rounds = arguments.rounds * (10 if name == "Rabtriever" else 1)  # short calls, so more of them
        seconds[name] = interleaved(by_length, rounds)
        print(name, milliseconds(seconds[name]), flush=True)
    per_call = {name: milliseconds(taken) for name, taken in seconds.items()}
    per_call["offline"] = {length: total / DOCUMENTS for length, total in per_call["offline"].items()}
    rows = [{"tokens": length, "milliseconds": {name: per_call[name][length] for name in LABELS}} for length in LENGTHS]
    plot({name: [per_call[name][length] for length in LENGTHS] for name in LABELS}, FOLDER / "search_length.png")
    online = seconds["Rabtriever"]
    ratio, interval = median_ratio(online[LENGTHS[-1]], online[LENGTHS[0]])
    flat = f"a query's time, documents of {LENGTHS[-1]} tokens / of {LENGTHS[0]}"
    slope = np.polyfit(np.log(LENGTHS), np.log([per_call["offline"][length] for length in LENGTHS]), 1)[0]
    bars = [
        bar(flat, ratio, "<=", 1.1, len(online[LENGTHS[0]]), interval),
        bar("encoding a document: exponent of its length (1 is linear)", float(slope), "<=", 1.15, arguments.rounds),
    ]
    settings = {**vars(arguments), "documents": DOCUMENTS, "suffix": SUFFIX, "width": WIDTH, "backbone": BACKBONE}
    print(write_result("benchmarks.search_length", {**settings, "dtype": "float32"}, rows, bars))


if __name__ == "__main__":
    main()
