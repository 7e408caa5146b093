"""One split: every system ranks, and what is known of it is measured and written."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ..bm25 import BM25
from ..files import write_json, write_tensors
from ..tasks.beir import RetrievalTask, Split
from ..tasks.named import check_leakage
from .calibration import expected_calibration_error, reliability
from .faithfulness import score_faithfulness
from .metrics import Run, rank_documents
from .plots import recall_curves, reliability_diagram, score_histograms
from .report import DEPTH, STUDENT, TEACHER, query_values, summary
from .runs import write_query_values, write_run
from .samples import among, corpus_sample, fixed_sample
from .systems import System, baselines, load_system, model_system, reranker_system

# Of a split and its corpus, on which a reranker is asked about every pair where candidates are ranked.
SAMPLE_QUERIES, SAMPLE_DOCUMENTS = 100, 500
SAMPLE_SECONDS = 120  # and for how long


def evaluate(
    systems: Sequence[Any],
    task: RetrievalTask,
    split: str = "test",
    folder: str | Path | None = None,
    train_split: str = "train",
    candidates: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Ranks a split with models and trivial baselines; what the stage `evaluate` does, without the folder of a run.

    Args:
        systems: models (rerankers, Rabtrievers, bi-encoders of sentence-transformers), their folders or Hub ids, or
            `System`s. Baselines are added.
        task: corpus and splits.
        split: whose queries are ranked.
        folder: where report, query-level metrics, run files and plots go; `None` keeps the report alone.
        train_split: what baselines learn from, if the task has it.
        candidates: how many of BM25's first documents are ranked; `None` ranks the corpus.
        max_queries: evaluate this many queries, the same ones every time; `None` means all.
        seed: of the bootstrap intervals.

    Returns:
        The report: `n`, `documents`, and `systems`, name -> metric -> `{"mean", "low", "high"}`, as `evaluate_split`
        writes it; `report.report_text` makes Markdown of it.

    Raises:
        ValueError: the task has no such split, two systems have one name, or a path is no model.

    Example:
        >>> report = evaluate([teacher, student], task)  # doctest: +SKIP
        >>> report["systems"]["Rabtriever"]["success@1"]["mean"]  # doctest: +SKIP
    """
    queries = fixed_sample(task.split(split), max_queries)
    ranking = baselines(task, train_split)
    for system in systems:
        if isinstance(system, str | Path):
            system = load_system(str(system), task.corpus)
        ranking.append(system if isinstance(system, System) else model_system(system, task.corpus))
    with TemporaryDirectory() as scratch:
        return evaluate_split(task, queries, ranking, seed, Path(folder or scratch), candidates=candidates)


def evaluate_split(
    task: RetrievalTask,
    split: Split,
    systems: Sequence[System],
    seed: int,
    folder: Path,
    given: dict[str, Run] | None = None,
    candidates: int | None = None,
) -> dict[str, Any]:
    """Ranks documents for a split with every system and writes all that is known of it to `folder`.

    Calibration and faithfulness are of scores of the whole corpus, and left out where only candidates are ranked. There
    the report holds what is known of the corpus too (`candidate_scores`).

    Args:
        task: what the split belongs to.
        split: the queries.
        systems: what ranks.
        seed: of the intervals.
        folder: where to.
        given: rankings of other systems, per query the corpus rows.
        candidates: how many of BM25's first documents are ranked; `None` ranks the corpus.

    Raises:
        ValueError: two systems have one name, or a system's scores hold NaN or do not fit queries and corpus.
    """
    names = [system.name for system in systems] + list(given or {})
    if len(set(names)) < len(names):
        raise ValueError(
            f"systems are {', '.join(names)}; accepted: names that differ, as --model NAME=PATH gives them"
        )
    size = len(task.corpus)
    rows = None if candidates is None or candidates >= size else first_stage(task, split, candidates)
    if rows is None:
        scores, corpus = {system.name: system.score(split.queries) for system in systems}, {}
    else:
        scores, corpus = candidate_scores(task, split, systems, rows, seed)
    for name, matrix in scores.items():
        if matrix.shape != (len(split), size):
            raise ValueError(f"{name} gave scores {tuple(matrix.shape)}; accepted: ({len(split)}, {size})")
    pools = None if rows is None else rows.tolist()
    runs = {name: rank_documents(matrix, DEPTH) for name, matrix in scores.items()}
    runs |= {name: run if pools is None else only(run, pools) for name, run in (given or {}).items()}
    values = query_values(runs, split.relevant, size, pools)
    report = {"task": task.name, "split": split.name, "documents": size}
    report["first_stage"] = None if rows is None else {"system": "BM25", "documents": rows.shape[1]}
    repeated = {pair: share for pair, share in check_leakage(task).items() if pair.startswith(f"{split.name} in ")}
    report |= {"repeated": repeated, **corpus, **summary(values, seed)}
    for system in systems:
        found = report["systems"][system.name]
        found["milliseconds"] = system.milliseconds_per_query(split.queries, rows)
        found["vector_bytes"] = system.vector_bytes
        write_run(
            folder / f"{split.name}-{system.name.replace(' ', '-')}.trec",
            system.name, split.query_ids, task.corpus_ids, runs[system.name], scores[system.name],
        )  # fmt: skip
    write_query_values(folder / f"{split.name}-queries.jsonl", split.query_ids, values)
    recall_curves(runs, split.relevant, folder / f"{split.name}-recall.png")
    models = {system.name: system.model for system in systems if system.model is not None and rows is None}
    if models:
        shown = {name: scores[name] for name in models}
        score_histograms(shown, split.relevant, folder / f"{split.name}-scores.png")
    if TEACHER in models:
        groups = reliability(scores[TEACHER], split.relevant)
        report["calibration"] = {"ece": expected_calibration_error(groups), "groups": groups}
        reliability_diagram(groups, report["calibration"]["ece"], folder / f"{split.name}-reliability.png")
    if {TEACHER, STUDENT} <= models.keys():
        width = models[STUDENT].config.embedding_dim
        report["faithfulness"] = {"scores": score_faithfulness(scores[TEACHER], scores[STUDENT], width)}
        pair = {name: scores[name] for name in (TEACHER, STUDENT)}
        write_tensors(folder / f"{split.name}-scores.safetensors", pair)
    write_json(folder / f"{split.name}.json", report)
    return report


def candidate_scores(
    task: RetrievalTask, split: Split, systems: Sequence[System], rows: Tensor, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every system on the candidates, and what can be said of the corpus at a bounded price.

    Args:
        task: the corpus.
        split: the `n` queries.
        systems: what ranks.
        rows: `(n, c)`, the candidates.
        seed: of the intervals.

    Returns:
        System -> `(n, m)` scores, minus infinity but for the candidates; and for the report `whole`, the systems that
        score every document anyway, and `sample`, all of them on `SAMPLE_QUERIES` queries and `SAMPLE_DOCUMENTS`
        documents, where rerankers do that within `SAMPLE_SECONDS`; else how long it would take.
    """
    size = len(task.corpus)
    queries, documents = corpus_sample(split.relevant, size, SAMPLE_QUERIES, SAMPLE_DOCUMENTS)
    scores: dict[str, Tensor] = {}
    sampled: dict[str, Tensor | None] = {}
    whole: dict[str, Run] = {}
    seconds = 0.0
    for system in systems:
        start = time.perf_counter()
        scores[system.name], everything = system.candidate_scores(split.queries, rows, size)
        sampled[system.name] = None if everything is None else everything[queries][:, documents]
        if everything is None:
            seconds += (time.perf_counter() - start) * len(queries) * len(documents) / rows.numel()
        else:
            whole[system.name] = rank_documents(everything, DEPTH)
    found = {"whole": summary(query_values(whole, split.relevant, size), seed), "sample": None}
    judges = [system for system in systems if system.judge is not None]
    if not judges:
        return scores, found
    found["sample"] = {"n": len(queries), "documents": len(documents), "minutes": max(seconds / 60, 1)}
    if seconds <= SAMPLE_SECONDS:
        asked, texts = [split.queries[row] for row in queries], [task.corpus[row] for row in documents]
        sampled |= {system.name: reranker_system(system.model, texts).score(asked) for system in judges}
        runs = {name: rank_documents(part, DEPTH) for name, part in sampled.items()}
        relevant = among([split.relevant[row] for row in queries], documents)
        found["sample"] = {"documents": len(documents), **summary(query_values(runs, relevant, len(documents)), seed)}
    return scores, found


def first_stage(task: RetrievalTask, split: Split, count: int) -> Tensor:
    """BM25's first documents of each query, `(n, count)` corpus rows; equal scores in the order of the corpus."""
    ranked = rank_documents(BM25(task.corpus)(split.queries), min(count, len(task.corpus)))
    return torch.tensor(ranked)


def only(run: Run, pools: Run) -> Run:
    """A ranking without what is not among each query's candidates."""
    return [[row for row in ranked if row in pool] for ranked, pool in zip(run, map(set, pools), strict=True)]
