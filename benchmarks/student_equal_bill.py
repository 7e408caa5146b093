"""Our student against bi-encoders that sentence-transformers trains, on the same scored pairs.

Usage:
    python -m benchmarks.student_equal_bill household=runs/data/household
    python -m benchmarks.student_equal_bill saycan=SAYCAN --teacher saycan=runs/saycan/seed{seed}/teacher/model \\
        --encoder runs/pretrained/minilm

All methods start from the same model: the teacher's backbone, or a sentence encoder (--encoder). They train on the
same queries, including those without labels, and on the same pairs of query and document with the teacher's log-odds.
Our student that learns only from the teacher draws these pairs at the first rate, while it trains; all other methods
have all pairs from the first step. `ours` also learns from the labels, with the share LABELS. Steps and queries per
step are the same, and so are the teacher's lengths, and its prompt from its backbone. Each method's learning rate is
the best one on dev; only its ranking of test is kept. The methods are those of `benchmarks.opponents`, the untrained
start if it can rank, and baselines that train no encoder. The best opponent of a bar is one with one vector per text.

In a corpus of more than a hundred documents, the teacher re-ranks the first ten documents of all methods for a hundred
test queries, drawn with a fixed seed. Teacher and student are compared on these queries only.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.bills import Bill, Setting, our_student, start_name, student_scores
from benchmarks.last_step import last_step_system
from benchmarks.opponents import MAX_SIM, METHODS, Opponent
from benchmarks.ranker import Ranker
from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.swaps import swapped
from modeling_rabtriever.evaluation.metrics import (
    paired_test,
)
from modeling_rabtriever.evaluation.report import Interval
from modeling_rabtriever.evaluation.samples import fixed_sample
from modeling_rabtriever.evaluation.systems import baselines
from modeling_rabtriever.files import write_tensors
from modeling_rabtriever.tasks.beir import RetrievalTask, Split

OURS, ALONE, AS_IT_IS = "ours", "ours, teacher alone", "as it is"
LABELS = 0.9  # share of the labels in the target of ours: the better of .5 and .9 on SayCan's dev
SETTINGS = {
    "household": Setting(400, 64, 64, (3e-4, 1e-3), candidates=16, rounds=2, predictor_rate=2e-3),
    "esconv": Setting(200, 64, 64, (1e-4, 3e-4, 1e-3), candidates=8, predictor_rate=2e-3),
    "saycan": Setting(200, 16, 16, (1e-4, 3e-4), candidates=16, rounds=2, swapped=400, predictor_rate=1e-4, bf16=True),
    "metatool": Setting(
        200, 32, 32, (1e-4, 3e-4), candidates=4, rounds=2, queries=3000, predictor_rate=1e-4, bf16=True
    ),
    "virtualhome": Setting(
        200, 32, 32, (1e-4, 3e-4), candidates=4, rounds=2, queries=3000, predictor_rate=1e-4, bf16=True
    ),
    "cose": Setting(200, 64, 64, (5e-5,), candidates=2, rounds=1, predictor_rate=1e-4, bf16=True),
    "ecare": Setting(200, 64, 64, (5e-5, 1.5e-4), candidates=2, rounds=1, queries=6000, predictor_rate=1e-4, bf16=True),
    "strategyqa": Setting(200, 32, 32, (1e-4, 3e-4), candidates=4, rounds=2, predictor_rate=1e-4, bf16=True),
    "scifact": Setting(100, 32, 32, (5e-5, 1.5e-4), candidates=2, rounds=1, predictor_rate=1e-4, bf16=True),
}


def with_swapped(task: RetrievalTask, train: Split, count: int, seed: int) -> Split:
    """The split plus queries without labels, made by exchanging names in its own."""
    if not count:
        return train
    known = {query for split in task.splits.values() for query in split.queries}
    more = swapped(train.queries, task.corpus, count, known, seed)
    ids = [f"swapped-{place}" for place in range(len(more))]
    return Split(train.name, [*train.query_ids, *ids], [*train.queries, *more], [*train.relevant, *({} for _ in more)])


def with_fewer(task: RetrievalTask, queries: int | None) -> RetrievalTask:
    """The task with a fixed sample of its training queries; `None` keeps all."""
    train = task.split("train")
    return replace(task, splits={**task.splits, train.name: fixed_sample(train, queries)})


def measure(bench: TeacherBench, encoder: str | None, methods: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row per method of one task, seed and start."""
    setting, seed = SETTINGS[bench.run.task], bench.run.seed
    task = with_fewer(bench.task, setting.queries)
    start = start_name(encoder)
    folder = bench.folder("equal-bill") / start.replace(" ", "-").replace("'", "")
    train = with_swapped(task, task.split("train"), setting.swapped, seed)
    ranker = Ranker(bench, folder)
    bill_file, states = folder / "bill.safetensors", folder.parent / "states"

    def student_at(how: Setting, name: str, rate: float, given: Bill | None) -> tuple[RabtrieverModel, Bill, float]:
        place, shape = folder / f"{name}-{rate:g}", StudentArguments(encoder=encoder)
        return our_student(bench.reranker, task, train, how, rate, place, states, shape, seed, given)

    if not bill_file.exists():  # the first student draws the pairs that all methods train on
        _, drawn, _ = student_at(setting, "alone", setting.rates[0], None)
        write_tensors(bill_file, {"documents": drawn.documents, "scores": drawn.scores})
    bill = Bill(train.queries, [list(own) for own in train.relevant], **load_file(bill_file))

    def ours(how: Setting, name: str, rate: float) -> tuple[Callable[[list[str]], Tensor], dict[str, Any]]:
        student, _, seconds = student_at(how, name, rate, bill)
        facts = {"seconds": seconds, "pairs": bill.documents.numel(), "bytes": 4 * student.config.embedding_dim}
        return lambda queries: student_scores(student, queries, task.corpus), facts

    labels_too = replace(setting, labels=LABELS)
    found = {OURS: ranker.best(OURS, partial(ours, labels_too, OURS), setting.rates)}
    opponent = Opponent(bench.reranker, task.corpus, bill, setting, encoder, seed)
    # Finished methods are compared again, because ours may have changed.
    wanted = {name for name in (ALONE, *opponent.methods) if name in methods or ranker.finished(name, setting.rates)}
    if ALONE in wanted:
        found[ALONE] = ranker.best(ALONE, partial(ours, setting, "alone"), setting.rates)

    def trained(method: str) -> Callable[[float], Any]:
        def train(rate: float) -> tuple[Callable[[list[str]], Tensor], dict[str, Any]]:
            model, seconds = opponent.train(method, rate)
            pairs = 0 if method.startswith("InfoNCE") else bill.documents.numel()
            facts = {"seconds": seconds, "pairs": pairs, "bytes": opponent.bytes_per_document(model)}
            return lambda queries: opponent.scores(model, queries), facts

        return train

    for method in [method for method in opponent.methods if method in wanted]:
        found[method] = ranker.best(method, trained(method), setting.rates)
    free = {"seconds": 0.0, "pairs": 0, "bytes": 0}
    if encoder is not None:
        start_model = opponent.as_it_is()
        facts = free | {"bytes": opponent.bytes_per_document(start_model)}
        found[AS_IT_IS] = ranker.best(
            AS_IT_IS, lambda _: (lambda queries: opponent.scores(start_model, queries), facts), (0.0,)
        )
    for system in [*baselines(task, "train"), *last_step_system(task)]:
        found[system.name] = ranker.best(system.name, lambda _, system=system: (system.score, free), (0.0,))
    rows, teacher = ranker.teacher([one["ranking"] for one in found.values()])
    shared = {"task": bench.run.task, "seed": seed, "start": start, "n": len(ranker.test)}
    shared |= {
        "documents": len(task.corpus),
        "queries": len(bill.queries),
        "labelled": len(bill.labelled),
        "teacher_n": len(rows),
    }
    own = ranker.values(found[OURS])
    own_rows = ranker.values(found[OURS], rows)
    result = [
        {**shared, "method": "teacher", **{name: Interval.of(values).to_json() for name, values in teacher.items()}}
    ]
    for method, one in found.items():
        facts = {name: one[name] for name in ("rate", "dev", "seconds", "pairs", "bytes")}
        row = {**shared, "method": method, **facts}
        for name, values in ranker.values(one).items():
            row[name] = Interval.of(values).to_json()
            if method != OURS:
                row[name]["p"] = paired_test(own[name], values)
                row[name]["ahead"] = float(own[name].mean() - values.mean())
            else:
                row[name]["kept"] = Interval.of_ratio(own_rows[name], teacher[name]).to_json()
        result.append(row)
    return result


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against the best method that trains an encoder, by its mean over seeds, and against the teacher."""
    bars = []
    for (_, _), here in grouped(rows, "task", "start"):
        means = {
            method: float(np.mean([row["ndcg@10"]["mean"] for row in own]))
            for (method,), own in grouped(here, "method")
            if method in METHODS and method != MAX_SIM
        }
        if means:
            best = max(means, key=lambda method: means[method])
            bars.append(ahead_bar(here, best, f"{best}, the best opponent"))
        bars += [kept_bar(here, metric, 0.97) for metric in ("success@1", "ndcg@10")]
    return bars


def ahead_bar(rows: list[dict[str, Any]], method: str, name: str) -> dict[str, Any]:
    """How far ours is ahead of a method in nDCG@10, mean over seeds; `rows` are of one task and start."""
    seeds = [row["ndcg@10"] for row in rows if row["method"] == method]
    p = ", ".join(f"{row['p']:.4f}" for row in seeds)
    ahead = float(np.mean([row["ahead"] for row in seeds]))
    return bar(f"{_label(rows)}: nDCG@10 less that of {name} (paired p {p})", ahead, ">=", 0.0, rows[0]["n"])


def kept_bar(rows: list[dict[str, Any]], metric: str, limit: float) -> dict[str, Any]:
    """The share of the teacher's metric that ours keeps, mean over seeds; `rows` are of one task and start."""
    kept = [row[metric]["kept"] for row in rows if row["method"] == OURS]
    mean = float(np.mean([one["mean"] for one in kept]))
    low = float(np.mean([one["low"] for one in kept]))
    high = float(np.mean([one["high"] for one in kept]))
    return bar(f"{_label(rows)}: {metric} / the teacher's", mean, ">=", limit, rows[0]["teacher_n"], [low, high])


def _label(rows: list[dict[str, Any]]) -> str:
    seeds = len([row for row in rows if row["method"] == OURS])
    return f"{rows[0]['task']}, {rows[0]['start']}, {seeds} seed{'s' if seeds > 1 else ''}"


def run(
    module: str,
    description: str | None,
    folder: str,
    methods: tuple[str, ...],
    bars: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> None:
    """Measures all tasks and seeds that the command line names, and adds them to a result file.

    Args:
        module: of the script; the file has its name.
        description: docstring of the script.
        folder: default folder of the runs.
        methods: opponents.
        bars: rows -> their bars.
    """
    parser = bench_parser(description, folder, splits=())
    parser.add_argument("--encoder", help="folder of a sentence encoder that all methods start from")
    methods = (ALONE, *methods)
    parser.add_argument("--methods", nargs="*", default=methods, choices=methods, help="what to train beside ours")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        new = measure(bench, arguments.encoder, tuple(arguments.methods))
        rows = with_earlier(module, new, ("task", "seed", "start", "method"))
        rows.sort(key=lambda row: list(SETTINGS).index(row["task"]))  # whichever was measured last
        settings = {name: vars(setting) for name, setting in SETTINGS.items()}
        print(write_result(module, settings, rows, bars(rows)), flush=True)


if __name__ == "__main__":
    run("benchmarks.student_equal_bill", __doc__, "runs/benchmark/equal-bill", METHODS, bars_of)
