"""Words, the student, and both joined by reciprocal rank fusion, on any sets in BEIR layout.

Usage:
    python -m benchmarks.search_hybrid --set household runs/data/household runs/household/student/model
    python -m benchmarks.search_hybrid --set cose path/to/cose runs/cose/student/model --set ...

Per set: the words of the store (`rabtriever index --words`), BM25 as in all reports (no stemming), the student, and the
hybrid search of `Searcher(hybrid=True)`; besides, the hybrid whose share of the words was the best on dev. All rank the
whole corpus for every test query. Vectors under --runs are kept. Writes results/search_hybrid.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import bar, with_earlier, write_result
from modeling_rabtriever.bm25 import BM25
from modeling_rabtriever.evaluation.metrics import Run, paired_test, query_metrics, rank_documents
from modeling_rabtriever.evaluation.report import Interval
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.retrieval import CorpusVectors, Document, Hit, Searcher, VectorStore, encode_corpus
from modeling_rabtriever.retrieval.words import FUSED_DEPTH, WORDS_WEIGHT, fused
from modeling_rabtriever.tasks.beir import RetrievalTask, Split, load_beir

METRICS = ("success@1", "ndcg@10", "recall@100")
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7)  # shares of the words that are tried on dev
WORDS, PLAIN, STUDENT, HYBRID, TUNED = "words", "BM25", "student", "hybrid", "hybrid, share from dev"


def encoded(model: Any, task: RetrievalTask, folder: Path) -> CorpusVectors:
    """A task's corpus, encoded once; ids are the rows."""
    documents = [Document(str(row), text) for row, text in enumerate(task.corpus)]
    return encode_corpus(model, documents, folder / "vectors")


def rows_of(found: list[list[Hit]]) -> Run:
    """Rankings as corpus rows."""
    return [[int(hit.id) for hit in hits] for hits in found]


def rankings(searcher: Searcher, split: Split) -> tuple[list[list[Hit]], list[list[Hit]]]:
    """The student's and the words' best documents of each query."""
    return searcher.search(split.queries, FUSED_DEPTH), searcher.store.search_words(split.queries, FUSED_DEPTH)


def joined(student: list[list[Hit]], words: list[list[Hit]], weight: float) -> Run:
    """The fused rankings of all queries."""
    return rows_of([fused(*pair, weight)[:FUSED_DEPTH] for pair in zip(student, words, strict=True)])


def measure(name: str, data: str, model_folder: str, runs: Path) -> dict[str, Any]:
    """One row: every system's metrics on test, and paired tests against the hybrid."""
    task, model = load_beir(data), load_model(model_folder)
    folder = runs / name
    store = VectorStore.of_corpus(folder / "store", encoded(model, task, folder))
    if not store.has_words:
        store.build_words()
    searcher = Searcher(model, store)
    dev, test = task.split("dev"), task.split("test")
    student, words = rankings(searcher, dev)
    tried = {
        weight: float(query_metrics(joined(student, words, weight), dev.relevant, ["ndcg@10"])["ndcg@10"].mean())
        for weight in WEIGHTS
    }
    chosen = max(tried, key=lambda weight: tried[weight])
    student, words = rankings(searcher, test)
    runs_of = {
        WORDS: rows_of(words),
        PLAIN: rank_documents(BM25(task.corpus)(test.queries), FUSED_DEPTH),
        STUDENT: rows_of(student),
        HYBRID: joined(student, words, WORDS_WEIGHT),
        TUNED: joined(student, words, chosen),
    }
    values = {system: query_metrics(run, test.relevant, METRICS) for system, run in runs_of.items()}
    best = {system: values[system]["ndcg@10"] for system in values}
    return {
        "set": name,
        "documents": len(task.corpus),
        "n": len(test),
        "dev_ndcg@10": {str(weight): value for weight, value in tried.items()},
        "share_from_dev": chosen,
        "systems": {
            system: {metric: Interval.of(own).to_json() for metric, own in found.items()}
            for system, found in values.items()
        },
        "p_against_hybrid": {system: paired_test(best[HYBRID], best[system]) for system in best if system != HYBRID},
        "queries": {
            "words above student": float(np.mean(best[WORDS] > best[STUDENT])),
            "student above words": float(np.mean(best[STUDENT] > best[WORDS])),
        },
    }


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The hybrid against the better of the two rankings it joins."""
    bars = []
    for row in rows:
        means = {system: row["systems"][system]["ndcg@10"]["mean"] for system in (WORDS, STUDENT, HYBRID)}
        better = max((WORDS, STUDENT), key=lambda system: means[system])
        name = f"nDCG@10 of hybrid search / of {better}, the better of its two, {row['set']} test"
        bars.append(bar(name, means[HYBRID] / means[better], ">=", 1.0, row["n"]))
    return bars


def main() -> None:
    """Measures the sets and adds them to the result file, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser)
    arguments = parser.parse_args()
    for name, data, model in arguments.set:
        rows = with_earlier("benchmarks.search_hybrid", [measure(name, data, model, arguments.runs)], ("set",))
        settings = {"depth": FUSED_DEPTH, "words_weight": WORDS_WEIGHT, "weights_on_dev": WEIGHTS}
        print(write_result("benchmarks.search_hybrid", settings, rows, bars_of(rows)))


def add_sets(parser: argparse.ArgumentParser) -> None:
    """The options `--set`, which may be repeated, and `--runs`."""
    names = ("NAME", "DATA", "STUDENT")
    parser.add_argument("--set", nargs=3, action="append", required=True, metavar=names, help="a set and its student")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/search"), help="folder for the vectors")


if __name__ == "__main__":
    main()
