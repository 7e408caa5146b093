"""Time from query text to document ids: the teacher, the teacher with cached prefixes, Rabtriever, and a bi-encoder.

Usage:
    python -m benchmarks.search_queries               # a quarter of an hour on two cores

The random backbone of benchmarks.teacher_scoring; suffixes of 32 tokens, prefixes of 32 and of 128. Rabtriever and the
bi-encoder of sentence-transformers (same backbone, last token) have vectors of the same width and search the same kind
of index exactly. The bi-encoder is timed twice: with a prompt of as many tokens as Rabtriever's, and with the bare
query. The teacher is timed on up to 551 documents; beyond that its time is extrapolated in proportion and marked
`estimated`. Vectors of large corpora are random, because the time of a scan does not depend on the numbers. Writes
results/search_queries.json and .png.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch

from benchmarks.opponents import untrained
from benchmarks.results import FOLDER, bar, write_result
from benchmarks.teacher_scoring import BACKBONE, TextMaker, make_reranker, make_student
from benchmarks.timing import interleaved, median_ratio, milliseconds
from modeling_rabtriever.retrieval import ExactIndex

matplotlib.use("Agg")
from matplotlib import pyplot as plt

QUERY_TOKENS, TOP = 32, 10
TIMED = (8, 551)  # documents that the teacher is timed on; 551 is the number of skills in the paper's SayCan
# Documents, and tokens of each: those of the teacher's 32 tokens as in the paper, and passages of 128.
SETTINGS = (*((size, length) for length in (32, 128) for size in TIMED), (100_000, 32), (1_000_000, 32))
TEACHERS = ("teacher", "cached teacher")
DENSE = ("Rabtriever", "bi-encoder", "bi-encoder, bare query")
DENSE_ROUNDS = 6  # as many as of the teachers, times
FASTER = {8: 10.0, 551: 200.0}  # times, than the teacher
LABELS = {
    "teacher": "teacher, full pass",
    "cached teacher": "teacher, cached prefixes",
    "Rabtriever": "Rabtriever",
    "bi-encoder": "bi-encoder, prompt of equal length",
    "bi-encoder, bare query": "bi-encoder, bare query",
}


class Bench:
    """Models and queries of all sizes."""

    def __init__(self, folder: str, queries: int) -> None:
        self.reranker = make_reranker()
        self.student = make_student(self.reranker, BACKBONE["hidden_size"])
        self.encoder = untrained(self.reranker, "InfoNCE", Path(folder)).eval()
        texts = TextMaker(self.reranker.processor, random.Random(0))
        self.texts = texts
        self.queries = [texts.query(QUERY_TOKENS) for _ in range(queries)]
        head, tail = self.reranker.processor.query_template.split("{query}")
        tail = tail.replace("{instruction}", self.reranker.processor.instruction)
        self.prompts = [head + query + tail for query in self.queries]
        lengths = {len(ids) for ids in self.encoder.tokenizer(self.prompts)["input_ids"]}
        if lengths != {QUERY_TOKENS}:
            raise RuntimeError(f"the bi-encoder reads {lengths} tokens, Rabtriever {QUERY_TOKENS}")

    def ways(self, size: int, length: int) -> dict[str, Callable[[int], Any]]:
        """Name -> the answer to one query over `size` documents of `length` tokens."""
        student, encoder, queries = self.student, self.encoder, self.queries
        generator = torch.Generator().manual_seed(0)
        index = ExactIndex(torch.randn(size, BACKBONE["hidden_size"], generator=generator))

        def dense(texts: list[str], place: int) -> Any:
            vector = encoder.encode([texts[place]], convert_to_tensor=True, show_progress_bar=False)
            return index.search(vector, TOP)[1].tolist()

        found: dict[str, Callable[[int], Any]] = {
            "Rabtriever": lambda place: index.search(student.encode_query([queries[place]]), TOP)[1].tolist(),
            "bi-encoder": lambda place: dense(self.prompts, place),
            "bi-encoder, bare query": lambda place: dense(queries, place),
        }
        if size in TIMED:
            documents = [self.texts.document(length) for _ in range(size)]
            prefixes = self.reranker.prefill(documents)
            found["teacher"] = lambda place: self.reranker.rank(queries[place], documents, top_k=TOP)
            found["cached teacher"] = lambda place: self.reranker.score([queries[place]], prefixes).topk(min(TOP, size))
        return found


def measure(bench: Bench, size: int, length: int, rounds: int) -> dict[str, Any]:
    """One row: median milliseconds of each way, and the ratios round by round."""
    ways = bench.ways(size, length)
    dense = interleaved({name: ways[name] for name in DENSE}, DENSE_ROUNDS * rounds)
    row: dict[str, Any] = {"documents": size, "document_tokens": length, "rounds": DENSE_ROUNDS * rounds}
    row["milliseconds"] = milliseconds(dense)
    row["against_rabtriever"] = {name: median_ratio(dense[name], dense["Rabtriever"]) for name in DENSE[1:]}
    judging = {name: way for name, way in ways.items() if name in TEACHERS}
    if judging:
        seconds = interleaved({"Rabtriever": ways["Rabtriever"], **judging}, rounds)
        row["teacher_rounds"] = rounds
        row["milliseconds"] |= {name: milliseconds(seconds)[name] for name in judging}
        row["against_rabtriever"] |= {name: median_ratio(seconds[name], seconds["Rabtriever"]) for name in judging}
    print(row, flush=True)
    return row


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rabtriever against the bi-encoder at every size, and against the teacher at the sizes it was timed on."""
    bars = []
    for row in rows:
        size, ratios = row["documents"], row["against_rabtriever"]
        documents = f"{size:,} documents of {row['document_tokens']} tokens"
        ratio, (low, high) = ratios["bi-encoder"]
        name = f"whole query, {documents}: Rabtriever / bi-encoder with as many query tokens"
        bars.append(bar(name, 1 / ratio, "<=", 1.1, row["rounds"], (1 / high, 1 / low)))
        if size in FASTER:
            ratio, interval = ratios["teacher"]
            name = f"whole query, {documents}: teacher / Rabtriever, times faster"
            bars.append(bar(name, ratio, ">=", FASTER[size], row["teacher_rounds"], interval))
    return bars


def with_estimates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with the teacher's time extrapolated per document for sizes it was not timed on."""
    for row in rows:
        if row["documents"] not in TIMED:
            (largest,) = [
                r for r in rows if (r["documents"], r["document_tokens"]) == (max(TIMED), row["document_tokens"])
            ]
            factor = row["documents"] / largest["documents"]
            row["estimated"] = {name: factor * largest["milliseconds"][name] for name in TEACHERS}
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds per query against the size of the corpus."""
    figure, panel = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    rows = [row for row in rows if row["document_tokens"] == 32]
    for name, label in LABELS.items():
        times = []
        for row in rows:
            milliseconds = row.get("estimated", {}) | row["milliseconds"]
            times.append((row["documents"], milliseconds[name]))
        (line,) = panel.plot(*zip(*times, strict=True), marker="o", label=label)
        if name in TEACHERS:
            guessed = [place for place, row in enumerate(rows) if "estimated" in row]
            panel.plot(
                *zip(*[times[place] for place in guessed], strict=True), "o", mfc="white", color=line.get_color()
            )
    panel.set(xscale="log", yscale="log", xlabel="documents", ylabel="ms per query")
    panel.set_title("One query, documents of 32 tokens (hollow: extrapolated)")
    panel.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=9, help="of the teachers per size; the others have six times as many"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, DENSE_ROUNDS * arguments.rounds + 1)
        rows = with_estimates([measure(bench, *setting, arguments.rounds) for setting in SETTINGS])
    plot(rows, FOLDER / "search_queries.png")
    settings = {**vars(arguments), "suffix": QUERY_TOKENS, "backbone": BACKBONE, "top": TOP}
    settings |= {"width": BACKBONE["hidden_size"], "dtype": "float32"}
    print(write_result("benchmarks.search_queries", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
