"""Our student against bi-encoders that sentence-transformers trains, at the same bill.

Usage:
    python -m benchmarks.student_equal_bill household=runs/data/household
    python -m benchmarks.student_equal_bill saycan=SAYCAN --teacher saycan=runs/saycan-seed{seed}/teacher/model

All start from the same backbone, the teacher's, and hear of the same queries (also those without labels), the same
pairs of query and document with the teacher's log-odds, the same prompt and the same number of steps and lists per
step. Each method's learning rate is the best of RATES on dev; test is ranked once with it. What differs is the method:

    ours        the predictor, forward listwise KL; its pairs are drawn on-policy while it trains
    KL          DistillKLDivLoss, all weights; it has all of our student's pairs from the first step on
    KL, LoRA    the same with adapters
    MarginMSE   MarginMSELoss on the same lists
    InfoNCE     labels alone, other queries' documents as negatives (MultipleNegativesRankingLoss)
"""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sentence_transformers.util import pairwise_dot_score
from torch import Tensor
from transformers import set_seed

from benchmarks.bi_encoders import scores, untrained
from benchmarks.results import bar, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from benchmarks.tasks import as_flags
from evaluation.metrics import bootstrap_interval, paired_test, query_metrics, rank_documents
from modeling_rabtriever import RabtrieverProcessor
from training import distill
from training.distillation import reranker_scores
from training.recipe import parse_stage
from training.stages import model_digest
from training.tasks.beir import Split

OURS = "ours"
METHODS = ("KL", "KL, LoRA", "MarginMSE", "InfoNCE")
RATES = {"household": (1e-4, 3e-4, 1e-3), "saycan": (1e-5, 3e-5, 1e-4)}
STEPS = {"household": 400, "saycan": 180}
BATCH = {"household": 64, "saycan": 16}
WIDTH = 8  # documents of a query's list that one step of an opponent reads
TEMPERATURE = 2.0
METRICS = ("success@1", "success@10", "mrr@10", "ndcg@10")


class Bill(NamedTuple):
    """What every method is given: queries, and per query the documents its teacher was asked about."""

    queries: list[str]
    relevant: list[list[int]]  # none for a query nobody judged
    documents: Tensor  # (n, c) corpus rows
    scores: Tensor  # (n, c) the teacher's log-odds

    @property
    def judged(self) -> list[int]:
        """Rows of the queries with labels."""
        return [row for row, relevant in enumerate(self.relevant) if relevant]


class Chosen(NamedTuple):
    """The best of a method's rates."""

    on_dev: float
    rate: float
    seconds: float
    test_scores: Tensor  # (n, m)


def our_flags(task: str, rate: float) -> list[str]:
    """Our student's settings beside those of the task's recipe."""
    settings = {"train_encoder": "full", "encoder_learning_rate": str(rate), "listwise_form": "forward"}
    settings |= {"temperature": str(TEMPERATURE), "mse_weight": "0", "kl_weight": "0", "shared_dim": "0"}
    settings |= {"per_device_train_batch_size": str(BATCH[task]), "max_steps": str(STEPS[task])}
    return as_flags(settings | {"eval_steps": str(STEPS[task])})


def our_student(bench: TeacherBench, rate: float) -> tuple[Any, Bill, float]:
    """Our student at one rate, the bill it ran up, and its seconds."""
    name = f"equal-bill-{rate:g}"
    states = bench.folder(name) / "states"  # of this student alone: what lies there is its bill
    argv = bench.flags(name, *our_flags(bench.run.task, rate), "--states", str(states))
    started = time.monotonic()
    student = bench.distil(name, *our_flags(bench.run.task, rate), "--states", str(states))
    return student, bill_of(bench, argv), time.monotonic() - started


def bill_of(bench: TeacherBench, argv: list[str]) -> Bill:
    """Queries, pairs and scores of a finished run of `training.distill`, read from its cache."""
    run, asked, *_, config = parse_stage("distill", distill.ARGUMENTS, argv)
    unjudged = (asked.unjudged_queries, config.output_dir, run.skip_bad)
    train, inputs = distill.training_queries(bench.task, run.train_split, *unjudged)
    inputs["teacher"] = model_digest(asked.teacher)
    cache = reranker_scores(bench.reranker, bench.task, train, config, distill.states_folder(asked.states, inputs))
    queries, documents = cache.pairs()
    order = queries.argsort(stable=True)
    lists = documents[order].view(len(train), -1)
    rows = torch.arange(len(train))[:, None].expand_as(lists)
    return Bill(train.queries, [list(judged) for judged in train.relevant], lists, cache.logits(rows, lists))


def training_rows(bench: TeacherBench, bill: Bill, method: str, count: int) -> Dataset:
    """`count` rows: `query`, `document_0`, ... and `label`, the teacher's log-odds of each; of InfoNCE the first alone.

    Prompts are those of our processor, as text.
    """
    rng, documents = random.Random(bench.run.seed), bench.task.corpus
    asked = bill.judged if method == "InfoNCE" else list(range(len(bill.queries)))
    rows = [row for _ in range(-(-count // len(asked))) for row in rng.sample(asked, len(asked))][:count]
    query, document = prompts(bench.reranker.processor)
    columns: dict[str, list[Any]] = {"query": [query.format(bill.queries[row]) for row in rows]}
    if method == "InfoNCE":
        columns["document_0"] = [document.format(documents[rng.choice(bill.relevant[row])]) for row in rows]
        return Dataset.from_dict(columns)
    places = [rng.sample(range(bill.documents.shape[1]), WIDTH) for _ in rows]
    for place in range(WIDTH):
        drawn = [int(bill.documents[row, own[place]]) for row, own in zip(rows, places, strict=True)]
        columns[f"document_{place}"] = [document.format(documents[found]) for found in drawn]
    columns["label"] = [bill.scores[row, own].tolist() for row, own in zip(rows, places, strict=True)]
    return Dataset.from_dict(columns)


def prompts(processor: RabtrieverProcessor) -> tuple[str, str]:
    """The prompt's two sides as format strings with one place each."""

    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    before, behind = processor.query_template.replace("{instruction}", processor.instruction).split("{query}")
    start, end = processor.document_template.split("{document}")
    return f"{escaped(before)}{{}}{escaped(behind)}", f"{escaped(start)}{{}}{escaped(end)}"


def opponent(bench: TeacherBench, bill: Bill, method: str, rate: float) -> tuple[SentenceTransformer, float]:
    """One trained bi-encoder and its seconds."""
    task = bench.run.task
    set_seed(bench.run.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = untrained(bench.reranker, method, Path(folder))
        assert isinstance(model, SentenceTransformer)
        processor = bench.reranker.processor
        model[0].max_seq_length = max(processor.max_prefix_length, processor.max_suffix_length)
        if method == "KL, LoRA":
            model.add_adapter(LoraConfig(r=32, lora_alpha=64, target_modules="all-linear"))
        rows = training_rows(bench, bill, method, BATCH[task] * STEPS[task])
        loss: torch.nn.Module
        if method == "InfoNCE":
            loss = MultipleNegativesRankingLoss(model)
        elif method == "MarginMSE":
            loss = MarginMSELoss(model)
        else:
            temperatures = {"student_temperature": TEMPERATURE, "teacher_temperature": TEMPERATURE}
            loss = DistillKLDivLoss(model, pairwise_dot_score, **temperatures)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=STEPS[task], per_device_train_batch_size=BATCH[task], learning_rate=rate,
            warmup_steps=STEPS[task] // 10, lr_scheduler_type="cosine", use_cpu=True, save_strategy="no",
            report_to="none", logging_steps=50, seed=bench.run.seed, disable_tqdm=True,
            batch_sampler=BatchSamplers.NO_DUPLICATES if method == "InfoNCE" else BatchSamplers.BATCH_SAMPLER,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss)
        started = time.monotonic()
        trainer.train()
    model.similarity_fn_name = "cosine" if method == "InfoNCE" else "dot"
    return model.eval(), time.monotonic() - started


def opponent_scores(bench: TeacherBench, model: SentenceTransformer, split: Split) -> Tensor:
    """Scores of the whole corpus: `(n, m)`."""
    query, document = prompts(bench.reranker.processor)
    return scores(
        model, [query.format(text) for text in split.queries], [document.format(text) for text in bench.task.corpus]
    )


def measure(bench: TeacherBench) -> list[dict[str, Any]]:
    """Ours and every opponent, each at the rate that is best on dev."""
    task, test = bench.run.task, bench.task.split("test")
    students = {rate: our_student(bench, rate) for rate in RATES[task]}
    ranked = {rate: partial(bench.student_scores, student) for rate, (student, _, _) in students.items()}
    best = {OURS: chosen(bench, ranked, {rate: seconds for rate, (_, _, seconds) in students.items()})}
    bill = students[best[OURS].rate][1]
    for method in METHODS:
        trained = {rate: opponent(bench, bill, method, rate) for rate in RATES[task]}
        ranked = {rate: partial(opponent_scores, bench, model) for rate, (model, _) in trained.items()}
        best[method] = chosen(bench, ranked, {rate: seconds for rate, (_, seconds) in trained.items()})
    teacher = query_metrics(rank_documents(bench.teacher_scores["test"], 100), test.relevant, METRICS)
    ours = query_metrics(rank_documents(best[OURS].test_scores, 100), test.relevant, METRICS)
    rows = []
    for method, (on_dev, rate, seconds, found) in best.items():
        values = query_metrics(rank_documents(found, 100), test.relevant, METRICS)
        row = {"task": task, "seed": bench.run.seed, "method": method, "n": len(test), "dev": on_dev, "rate": rate}
        row |= {"seconds": seconds, "queries": len(bill.queries), "labelled": len(bill.judged)}
        row |= {
            "teacher_pairs": 0 if method == "InfoNCE" else bill.documents.numel(),
            "numbers": _numbers(bench, method),
        }
        for metric, own in values.items():
            low, high = bootstrap_interval(own)
            row[metric] = {
                "mean": float(own.mean()),
                "low": low,
                "high": high,
                "teacher": float(teacher[metric].mean()),
            }
            row[metric] |= {"p": None if method == OURS else paired_test(ours[metric], own)}
        rows.append(row)
    return rows


def chosen(
    bench: TeacherBench, ranked: Mapping[float, Callable[[Split], Tensor]], seconds: Mapping[float, float]
) -> Chosen:
    """The rate that is best on dev; only its model ranks test."""
    dev, test = (bench.task.split(name) for name in ("dev", "test"))
    on_dev = {rate: _metric(score(dev), dev.relevant) for rate, score in ranked.items()}
    rate = max(on_dev, key=lambda one: on_dev[one])
    return Chosen(on_dev[rate], rate, seconds[rate], ranked[rate](test))


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against the best opponent, by its mean over seeds, and against the teacher."""
    bars = []
    for task in dict.fromkeys(row["task"] for row in rows):
        means: dict[str, float] = {}
        own = [row for row in rows if row["task"] == task]
        for method in (OURS, *METHODS):
            found = [row["ndcg@10"]["mean"] for row in own if row["method"] == method]
            means[method] = sum(found) / len(found)
        ours = [row for row in own if row["method"] == OURS]
        best = max(METHODS, key=lambda method: means[method])
        label = f"{task}, {len(ours)} seeds: nDCG@10 of ours"
        bars.append(
            bar(f"{label} less that of {best}, the best opponent", means[OURS] - means[best], ">=", 0.0, ours[0]["n"])
        )
        kept = sum(row["ndcg@10"]["mean"] / row["ndcg@10"]["teacher"] for row in ours) / len(ours)
        bars.append(bar(f"{label} / the teacher's", kept, ">=", 0.97, ours[0]["n"]))
    return bars


def _metric(scores_: Tensor, relevant: Any) -> float:
    return float(query_metrics(rank_documents(scores_, 10), relevant, ("ndcg@10",))["ndcg@10"].mean())


def _numbers(bench: TeacherBench, method: str) -> int:
    """Numbers kept of a document."""
    if method != OURS:
        return int(bench.reranker.config.hidden_size)
    _, _, shape, *_ = parse_stage("distill", distill.ARGUMENTS, bench.flags("any"))
    return int(shape.embedding_dim or bench.reranker.config.hidden_size)


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/equal-bill")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        rows = with_earlier("benchmarks.student_equal_bill", measure(bench), ("task", "seed", "method"))
        settings = {"rates": RATES, "steps": STEPS, "batch": BATCH, "width": WIDTH, "temperature": TEMPERATURE}
        print(write_result("benchmarks.student_equal_bill", settings, rows, bars_of(rows)), flush=True)


if __name__ == "__main__":
    main()
