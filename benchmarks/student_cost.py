"""What a student costs and what it keeps: fewer layers, a small encoder, a smaller bill.

Usage:
    python -m benchmarks.student_cost saycan=SAYCAN --teacher saycan=runs/saycan/seed{seed}/teacher/model \\
        --encoder runs/pretrained/minilm

Two curves on test. All students train on the same scored pairs: those that our student on --encoder drew in
`benchmarks.student_equal_bill`, whose runs are reused.

- Share of the teacher's quality against the cost of a query: the teacher's backbone, its first half and quarter, and
  the encoder. Milliseconds are medians of single queries on one thread; the models take turns query by query.
- Share of the teacher's quality against the number of scored pairs: the first 4, 8, ... documents of every query, for
  ours, which learns from the teacher only, and for `KL` (`benchmarks.opponents`), both on the encoder, with the seconds
  of training.
"""

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.bills import Bill, our_student, start_name, student_scores
from benchmarks.opponents import Opponent
from benchmarks.ranker import METRICS, Ranker
from benchmarks.results import bar, with_earlier, write_result
from benchmarks.student_equal_bill import ALONE, SETTINGS, with_fewer, with_swapped
from benchmarks.students import TeacherBench, bench_parser, benches
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.evaluation.metrics import query_metrics, rank_documents
from modeling_rabtriever.evaluation.report import Interval

WIDTHS = (4, 8)  # documents per query of the smaller budgets; all pairs are the last point
TIMED = 41
BACKBONE = {"rates": (3e-5,), "predictor_rate": 1e-3}  # a backbone's predictor does not start with a ranking


def milliseconds(students: dict[str, RabtrieverModel], queries: list[str]) -> dict[str, float]:
    """Median wall time of one query, text in, vector out; the students take turns."""
    times: dict[str, list[float]] = {name: [] for name in students}
    for query in queries[: TIMED + 1]:
        for name, student in students.items():
            started = time.perf_counter()
            student.encode_query([query])
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def measure(bench: TeacherBench, encoder: str) -> list[dict[str, Any]]:
    """Rows of one task and seed."""
    seed, setting = bench.run.seed, SETTINGS[bench.run.task]
    task = with_fewer(bench.task, setting.queries)
    root, small = bench.folder("equal-bill"), start_name(encoder)
    train = with_swapped(task, task.split("train"), setting.swapped, seed)
    ranker = Ranker(bench, root / small)
    best = ranker.read(ALONE)
    rate, shape = float(best["rate"]), StudentArguments(encoder=encoder)
    student, bill, seconds = our_student(
        bench.reranker, task, train, setting, rate, root / small / f"alone-{rate:g}", root / "states", shape, seed
    )
    rows, teacher = ranker.teacher([best["ranking"]])
    split = ranker.test.take(rows)
    shared = {"task": bench.run.task, "seed": seed, "n": len(rows), "queries": len(bill.queries)}

    def row(kind: str, name: str, ranking: list[list[int]], width: int, seconds: float) -> dict[str, Any]:
        found = query_metrics(ranking, split.relevant, METRICS)
        kept = {metric: Interval.of_ratio(values, teacher[metric]).to_json() for metric, values in found.items()}
        facts = {"kind": kind, "student": name, "pairs": width * len(bill.queries), "seconds": seconds}
        return {**shared, **facts, "kept": kept}

    def ranked(scores: torch.Tensor) -> list[list[int]]:
        return rank_documents(scores, 10)

    def earlier(method: str) -> list[list[int]]:
        ranking = ranker.read(method)["ranking"]
        return [ranking[place] for place in rows]

    found, students = [], {small: student}
    width = bill.documents.shape[1]
    found.append(row("query cost", small, earlier(ALONE), width, seconds))
    layers = bench.reranker.config.text_config.num_hidden_layers
    for count in dict.fromkeys(max(1, layers // part) for part in (1, 2, 4)):
        name, own = f"{count} layers", StudentArguments(encoder=str(count))
        how = replace(setting, **BACKBONE)
        students[name], _, spent = our_student(
            bench.reranker, task, train, how, how.rates[0], root / "cost" / name.replace(" ", "-"), root / "states",
            own, seed, bill,
        )  # fmt: skip
        scores = student_scores(students[name], split.queries, task.corpus)
        found.append(row("query cost", name, ranked(scores), width, spent))
    times = milliseconds(students, split.queries)
    for one in found:
        one["ms"] = times[one["student"]]
    kl_rate = float(ranker.read("KL")["rate"])
    for count in (one for one in WIDTHS if one < width):
        part = Bill(bill.queries, bill.relevant, bill.documents[:, :count], bill.scores[:, :count])
        few, _, spent = our_student(
            bench.reranker, task, train, setting, rate, root / "cost" / f"bill-{count}", root / "states", shape, seed,
            part,
        )  # fmt: skip
        found.append(row("bill", ALONE, ranked(student_scores(few, split.queries, task.corpus)), count, spent))
        opponent = Opponent(bench.reranker, task.corpus, part, setting, encoder, seed)
        model, spent = opponent.train("KL", kl_rate)
        found.append(row("bill", "KL", ranked(opponent.scores(model, split.queries)), count, spent))
    found.append(row("bill", ALONE, earlier(ALONE), width, seconds))
    found.append(row("bill", "KL", earlier("KL"), width, float(ranker.read("KL")["seconds"])))
    return found


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The small encoder against the teacher's backbone: share of the teacher's quality, and cost of a query."""
    bars = []
    cost = [row for row in rows if row["kind"] == "query cost"]
    for task in dict.fromkeys(row["task"] for row in cost):
        own = [row for row in cost if row["task"] == task]
        large = max(own, key=lambda row: row["ms"])
        for row in own:
            if "layers" not in row["student"]:
                for metric in ("success@1", "ndcg@10"):
                    share = row["kept"][metric]["mean"] / large["kept"][metric]["mean"]
                    name = f"{task}: {metric} of {row['student']} / that of {large['student']}"
                    bars.append(bar(name, share, ">=", 0.95, row["n"]))
                name = f"{task}: ms of a query, {row['student']} / {large['student']}"
                bars.append(bar(name, row["ms"] / large["ms"], "<=", 0.3, TIMED))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and adds them to the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/equal-bill", splits=())
    parser.add_argument("--encoder", required=True, help="folder of the small sentence encoder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for bench in benches(arguments):
        new = measure(bench, arguments.encoder)
        rows = with_earlier("benchmarks.student_cost", new, ("task", "seed", "kind", "student", "pairs"))
        settings = {"widths": WIDTHS, "timed": TIMED, "backbone": BACKBONE}
        print(write_result("benchmarks.student_cost", settings, rows, bars_of(rows)), flush=True)


if __name__ == "__main__":
    main()
