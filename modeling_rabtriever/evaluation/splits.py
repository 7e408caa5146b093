"""Ranks one split with every system, measures the results and writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import write_json, write_tensors
from ..progress import lines_in_logs
from ..tasks.beir import RetrievalTask, Split
from ..tasks.named import check_leakage
from .calibration import expected_calibration_error, reliability
from .candidates import candidate_scores, first_stage, only
from .comparison import DEPTH, Values, compare, query_values
from .faithfulness import score_faithfulness
from .labels import STUDENT, TEACHER
from .metrics import Run, rank_documents
from .plots import recall_curves, reliability_diagram, score_histograms
from .report import Report, SystemReport
from .runs import write_query_values, write_run
from .samples import fixed_sample
from .systems import System, baselines, load_system, model_system


@dataclass(frozen=True)
class RankedSplit:
    """The results of all systems on one split.

    The fields after `split` are by system; `scores` are missing for systems that were given as a run.
    """

    report: Report
    task: RetrievalTask
    split: Split
    values: Values
    runs: Mapping[str, Run]
    scores: Mapping[str, Tensor]  # (n, m)
    models: Mapping[str, Any]  # those that scored the whole corpus

    def write(self, folder: Path) -> None:
        """Writes the report, query-level metrics, run files and plots, and the scores of teacher and student."""
        name, relevant = self.split.name, self.split.relevant
        for system, scores in self.scores.items():
            path = folder / f"{name}-{system.replace(' ', '-')}.trec"
            write_run(path, system, self.split.query_ids, self.task.corpus_ids, self.runs[system], scores)
        write_query_values(folder / f"{name}-queries.jsonl", self.split.query_ids, self.values)
        recall_curves(self.runs, relevant, folder / f"{name}-recall.png")
        if self.models:
            shown = {system: self.scores[system] for system in self.models}
            score_histograms(shown, relevant, folder / f"{name}-scores.png")
        found = self.report.calibration
        if found is not None:
            reliability_diagram(found["groups"], found["ece"], folder / f"{name}-reliability.png")
        if {TEACHER, STUDENT} <= self.models.keys():
            pair = {system: self.scores[system] for system in (TEACHER, STUDENT)}
            write_tensors(folder / f"{name}-scores.safetensors", pair)
        write_json(folder / f"{name}.json", self.report.to_json())


@lines_in_logs()
def evaluate(
    systems: Sequence[Any],
    task: RetrievalTask,
    split: str = "test",
    folder: str | Path | None = None,
    train_split: str = "train",
    candidates: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
) -> Report:
    """Ranks a split with models and trivial baselines; the command `evaluate` does the same and writes more files.

    Args:
        systems: models (rerankers, Rabtrievers, bi-encoders of sentence-transformers), their folders or Hub ids, or
            `System`s. Baselines are added.
        task: corpus and splits.
        split: name of the split to rank.
        folder: for report, query-level metrics, run files and plots; `None` writes nothing.
        train_split: the training data of baselines, if the task has it.
        candidates: number of first documents of BM25 to rank; `None` ranks the corpus.
        max_queries: size of a fixed sample of queries; `None` means all.
        seed: of the bootstrap intervals.

    Raises:
        ValueError: the task has no such split, two systems have the same name, or a path is not a model.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.evaluation import System, evaluate
        >>> from modeling_rabtriever.tasks.beir import RetrievalTask, Split
        >>> split = Split("test", ["q0", "q1"], ["I spilled my drink", "it is dark"], [{0: 1}, {1: 1}])
        >>> task = RetrievalTask("chores", ["d0", "d1"], ["bring the sponge", "bring a lamp"], {"test": split})
        >>> report = evaluate([System("mine", lambda queries: torch.eye(2)[: len(queries)])], task)
        >>> list(report.systems)
        ['random', 'BM25', 'mine']
        >>> report.systems["mine"].metrics["success@1"]
        Interval(mean=1.0, low=1.0, high=1.0)
        >>> print(report.table.splitlines()[0])
        | test: n = 2, 2 documents | R@1 | R@3 | R@5 | MRR@10 | ms per query |
    """
    queries = fixed_sample(task.split(split), max_queries)
    ranking = baselines(task, train_split)
    for system in systems:
        if isinstance(system, str | Path):
            system = load_system(str(system), task.corpus)
        ranking.append(system if isinstance(system, System) else model_system(system, task.corpus))
    ranked = rank_split(task, queries, ranking, seed, candidates=candidates)
    if folder is not None:
        ranked.write(Path(folder))
    return ranked.report


def rank_split(
    task: RetrievalTask,
    split: Split,
    systems: Sequence[System],
    seed: int = 0,
    given: Mapping[str, Run] | None = None,
    candidates: int | None = None,
) -> RankedSplit:
    """Ranks documents for a split with every system and measures the results.

    Calibration and faithfulness need scores of the whole corpus, and are left out if only candidates are ranked. The
    report then has results on the whole corpus and on a sample of it (`candidate_scores`). `given` are runs of other
    systems; the other settings are those of `evaluate`.

    Raises:
        ValueError: two systems have the same name, or scores of a system hold NaN or do not fit queries and corpus.
    """
    names = [system.name for system in systems] + list(given or {})
    if len(set(names)) < len(names):
        raise ValueError(f"systems are {', '.join(names)}; accepted: different names, which --model NAME=PATH sets")
    size = len(task.corpus)
    rows, whole, sample = None, None, None
    if candidates is None or candidates >= size:
        scores = {system.name: system.score(split.queries) for system in systems}
    else:
        rows = first_stage(task, split, candidates)
        scores, whole, sample = candidate_scores(task, split, systems, rows, seed)
    for name, matrix in scores.items():
        if matrix.shape != (len(split), size):
            raise ValueError(f"{name} gave scores of shape {tuple(matrix.shape)}; accepted: ({len(split)}, {size})")
    pools = None if rows is None else rows.tolist()
    runs = {name: rank_documents(matrix, DEPTH) for name, matrix in scores.items()}
    runs |= {name: run if pools is None else only(run, pools) for name, run in (given or {}).items()}
    values = query_values(runs, split.relevant, size, pools)
    report = compare(values, size, seed)
    models = {system.name: system.model for system in systems if system.model is not None and rows is None}
    timed = {system.name: _timed(system, report.systems[system.name], split, rows) for system in systems}
    report = replace(
        report,
        task=task.name,
        split=split.name,
        candidates=None if rows is None else rows.shape[1],
        repeated={pair: share for pair, share in check_leakage(task).items() if pair.startswith(f"{split.name} in ")},
        systems={**report.systems, **timed},
        whole=whole,
        sample=sample,
        calibration=_calibration(scores[TEACHER], split) if TEACHER in models else None,
        faithfulness=_faithfulness(models[STUDENT], scores) if {TEACHER, STUDENT} <= models.keys() else None,
    )
    return RankedSplit(report, task, split, values, runs, scores, models)


def _timed(system: System, reached: SystemReport, split: Split, rows: Tensor | None) -> SystemReport:
    milliseconds = system.milliseconds_per_query(split.queries, rows)
    return replace(reached, milliseconds=milliseconds, vector_bytes=system.vector_bytes)


def _calibration(log_odds: Tensor, split: Split) -> dict[str, Any]:
    groups = reliability(log_odds, split.relevant)
    return {"ece": expected_calibration_error(groups), "groups": groups}


def _faithfulness(student: Any, scores: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"scores": score_faithfulness(scores[TEACHER], scores[STUDENT], student.config.embedding_dim)}
