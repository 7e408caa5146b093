"""Documents that distillation never saw: a fifth of household's objects comes later.

Usage:
    python -m benchmarks.student_new_documents household=runs/data/household --encoder runs/pretrained/minilm

The teacher knows all documents. Students and models trained on labels see a corpus without the objects held out, and
all training queries, those that only held-out documents answer without a label, as a log of queries would hold them.
All methods get the same queries and scored pairs. They are evaluated on the queries that a held-out document answers:
among the held-out documents alone, and in the full corpus, where answers that were not held out are taken away. Every
method has one learning rate.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bills import Setting, our_student, start_name, student_scores
from benchmarks.opponents import HARD, Opponent
from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.student_equal_bill import ALONE, AS_IT_IS, LABELS, OURS
from benchmarks.students import TeacherBench, bench_parser, benches
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.metrics import (
    paired_test,
    query_metrics,
    rank_documents,
)
from modeling_rabtriever.evaluation.report import Interval
from modeling_rabtriever.tasks.beir import RetrievalTask, Split

SHARE = 0.2  # of the objects
METHODS = ("KL", "InfoNCE", HARD)
METRICS = ("success@1", "mrr@10")
AMONG, FULL = "among new documents", "full corpus"
BACKBONE_SETTING = Setting(150, 64, 64, (3e-4,), candidates=16, rounds=2, predictor_rate=2e-3)
ENCODER_SETTING = Setting(200, 64, 64, (1e-4,), candidates=16, rounds=2, predictor_rate=1e-4, bf16=True)
KEPT = 0.909  # of the teacher's R@1: a student with 65 passes per document, since removed

Scores = Callable[[list[str]], Tensor]


def held_out(task: RetrievalTask, seed: int) -> list[int]:
    """Corpus rows of a fifth of the objects, in all their places."""
    objects = [corpus_id.partition("-")[0] for corpus_id in task.corpus_ids]
    names = sorted(set(objects))
    chosen = set(random.Random(seed).sample(names, round(SHARE * len(names))))
    return [row for row, name in enumerate(objects) if name in chosen]


def without(task: RetrievalTask, rows: list[int]) -> RetrievalTask:
    """The task without these documents; queries that only they answer stay, without labels, in the training split."""
    gone = set(rows)
    left = [row for row in range(len(task.corpus)) if row not in gone]
    place = {row: new for new, row in enumerate(left)}
    splits = {}
    for name in ("train", "dev"):
        split = task.split(name)
        relevant = [{place[row]: grade for row, grade in own.items() if row in place} for own in split.relevant]
        kept = [row for row, own in enumerate(relevant) if own or name == "train"]
        splits[name] = Split(name, split.query_ids, split.queries, relevant).take(kept)
    texts, ids = [task.corpus[row] for row in left], [task.corpus_ids[row] for row in left]
    return replace(task, corpus=texts, corpus_ids=ids, splits=splits)


def views(scores: Tensor, split: Split, rows: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of the queries that a held-out document answers, by what is ranked."""
    place = {row: column for column, row in enumerate(rows)}
    asked = [query for query, own in enumerate(split.relevant) if own.keys() & place.keys()]
    answers = [{row: grade for row, grade in split.relevant[query].items() if row in place} for query in asked]
    full = scores[asked].clone()
    for line, query in enumerate(asked):
        full[line, [row for row in split.relevant[query] if row not in place]] = -torch.inf
    among = [{place[row]: grade for row, grade in own.items()} for own in answers]
    return {
        AMONG: query_metrics(rank_documents(scores[asked][:, rows], 10), among, METRICS),
        FULL: query_metrics(rank_documents(full, 10), answers, METRICS),
    }


def scorers(bench: TeacherBench, encoder: str | None, rows: list[int], methods: tuple[str, ...]) -> dict[str, Scores]:
    """Every method's scores of the full corpus; all are trained on the corpus without the held-out rows."""
    setting, seed, corpus = BACKBONE_SETTING if encoder is None else ENCODER_SETTING, bench.run.seed, bench.task.corpus
    small, (rate,) = without(bench.task, rows), setting.rates
    train, shape = small.split("train"), StudentArguments(encoder=encoder)
    folder = bench.folder("new-documents") / start_name(encoder).replace(" ", "-").replace("'", "")

    def ours(name: str, how: Setting, given: Any = None) -> tuple[Scores, Any]:
        student, bill, _ = our_student(
            bench.reranker, small, train, how, rate, folder / name, folder.parent / "states", shape, seed, given
        )
        return lambda queries: student_scores(student, queries, corpus), bill

    alone, bill = ours("alone", setting)
    found = {OURS: ours("ours", replace(setting, labels=LABELS), bill)[0], ALONE: alone}
    opponent = Opponent(bench.reranker, small.corpus, bill, setting, encoder, seed)
    reader = Opponent(bench.reranker, corpus, bill, setting, encoder, seed)

    def trained(model: Any) -> Scores:
        return lambda queries: reader.scores(model, queries)

    for method in methods:
        if method in opponent.methods:
            found[method] = trained(opponent.train(method, rate)[0])
    if encoder is not None:
        found[AS_IT_IS] = trained(opponent.as_it_is())
    return found


def measure(bench: TeacherBench, encoder: str | None, methods: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row per split, method and view of one task, seed and start."""
    rows, result = held_out(bench.task, bench.run.seed), []
    every = scorers(bench, encoder, rows, methods)
    for split in bench.splits:
        teacher = views(bench.teacher_scores[split.name], split, rows)
        found = {TEACHER: teacher} | {name: views(score(split.queries), split, rows) for name, score in every.items()}
        for method, own in found.items():
            for view, metrics in own.items():
                row: dict[str, Any] = {"task": bench.run.task, "seed": bench.run.seed, "start": start_name(encoder)}
                row |= {"split": split.name, "method": method, "view": view, "held_out": len(rows)}
                row |= {"documents": len(bench.task.corpus), "n": len(metrics[METRICS[0]])}
                for name, values in metrics.items():
                    row[name] = Interval.of(values).to_json()
                    row[name]["p"] = paired_test(found[OURS][view][name], values)
                    if teacher[view][name].any():
                        row[name]["kept"] = Interval.of_ratio(values, teacher[view][name]).to_json()
                result.append(row)
    return result


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The share of the teacher's R@1 that ours keeps on test, mean over seeds."""
    bars = []
    tested = [row for row in rows if row["method"] == OURS and row["split"] == "test" and "kept" in row["success@1"]]
    for (task, start, view), own in grouped(tested, "task", "start", "view"):
        kept = float(np.mean([row["success@1"]["kept"]["mean"] for row in own]))
        label = f"R@1 / the teacher's, {task}, {start}, {view}, {len(own)} seed(s)"
        bars.append(bar(label, kept, ">=", KEPT, own[0]["n"]))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/new-documents", splits=("test",))
    parser.add_argument("--encoder", help="folder of a sentence encoder that all methods start from")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS, help="what to train beside ours")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        new = measure(bench, arguments.encoder, tuple(arguments.methods))
        rows = with_earlier(
            "benchmarks.student_new_documents", new, ("task", "seed", "start", "split", "method", "view")
        )
        settings = {"share": SHARE, "backbone": vars(BACKBONE_SETTING), "encoder": vars(ENCODER_SETTING)}
        print(write_result("benchmarks.student_new_documents", settings, rows, bars_of(rows)), flush=True)


if __name__ == "__main__":
    main()
