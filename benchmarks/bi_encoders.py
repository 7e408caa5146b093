"""What a user would train instead, by sentence-transformers: from our teacher's own backbone, on the same data.

Usage:
    python -m benchmarks.bi_encoders household=runs/data/household
    python -m benchmarks.bi_encoders household=... --teacher household=runs/household-seed{seed}/teacher/model

Bi-encoder with InfoNCE (last token, cosine, temperature 0.05, as RepLLaMA trains), bi-encoder distilled by MarginMSE
from the teacher (last token, dot product), and token vectors with MaxSim (128 numbers each, InfoNCE). All weights are
trained; a query's list is one positive and negatives drawn anew each time, so no relevant document is ever a negative.
Steps and learning rate are those of SETTINGS, not tuned.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor
from transformers import set_seed

from benchmarks.opponents import untrained
from benchmarks.results import with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches
from benchmarks.tasks import FROM_SCRATCH
from modeling_rabtriever.distillation.teacher_states import TeacherStates

METHODS = ("InfoNCE", "MarginMSE", "MaxSim")
SETTINGS: dict[str, dict[str, Any]] = {
    "household": {"batch": 64, "candidates": 8, "steps": 400, "learning_rate": 1e-3},
    "household-large": {"batch": 64, "candidates": 8, "steps": 400, "learning_rate": 1e-3},
    "esconv": {"batch": 64, "candidates": 4, "steps": 192, "learning_rate": 5e-4},  # an epoch, as the teacher
    "saycan": {"batch": 16, "candidates": 8, "steps": 42, "learning_rate": 5e-5},
}
SETTINGS |= {name: {"batch": 32, "candidates": 4, "steps": 200, "learning_rate": 5e-4} for name in FROM_SCRATCH}
NOT_RELEVANT = -100.0  # label of a negative where a positive has 0: a softmax of the labels is one-hot


def training_rows(bench: TeacherBench, method: str, candidates: int, count: int) -> Dataset:
    """`count` lists: `query`, `document_0` (a positive), `document_1`, ..., `label` (one score per document)."""
    train, size, rng = bench.task.split("train"), len(bench.task.corpus), random.Random(bench.run.seed)
    queries = [row for _ in range(-(-count // len(train))) for row in rng.sample(range(len(train)), len(train))][:count]
    lists = []
    for query in queries:
        relevant = train.relevant[query]
        drawn = rng.sample(range(size), min(size, candidates + len(relevant) - 1))
        others = [row for row in drawn if row not in relevant][: candidates - 1]
        lists.append([rng.choice(sorted(relevant)), *others])
    width = min(map(len, lists))
    documents = torch.tensor([found[:width] for found in lists])
    labels = torch.full(documents.shape, NOT_RELEVANT)
    labels[:, 0] = 0.0
    if method == "MarginMSE":
        labels = _teacher_scores(bench, torch.tensor(queries), documents)
    columns = {"query": [train.queries[row] for row in queries]}
    for place in range(width):
        columns[f"document_{place}"] = [bench.task.corpus[row] for row in documents[:, place].tolist()]
    return Dataset.from_dict({**columns, "label": labels.tolist()})


def _teacher_scores(bench: TeacherBench, queries: Tensor, documents: Tensor) -> Tensor:
    folder = bench.runs / f"states-{bench.run.task}-{bench.run.seed}"
    states = TeacherStates(folder, bench.reranker, bench.task.split("train").queries, bench.task.corpus)
    asked = queries.unsqueeze(1).expand_as(documents)
    states.ask(asked.flatten(), documents.flatten())
    return states.logits(asked, documents)


def train(
    bench: TeacherBench, method: str, bf16: bool, attention: str | None = None
) -> SentenceTransformer | MultiVectorEncoder:
    """One trained model; `attention` is the backbone's implementation, transformers' choice without."""
    settings = SETTINGS[bench.run.task]
    set_seed(bench.run.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = untrained(bench.reranker, method, Path(folder), attention)
        rows = training_rows(bench, method, settings["candidates"], settings["batch"] * settings["steps"])
        loss: torch.nn.Module
        if method == "MarginMSE":
            loss = MarginMSELoss(model)
        elif method == "InfoNCE":
            loss = DistillKLDivLoss(model, pairwise_cos_sim, student_temperature=0.05, teacher_temperature=1.0)
        else:
            loss = MultiVectorDistillKLDivLoss(model)
        kinds = {True: (MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments)}
        trainer_class, arguments_class = kinds.get(
            method == "MaxSim", (SentenceTransformerTrainer, SentenceTransformerTrainingArguments)
        )
        arguments = arguments_class(
            output_dir=folder, max_steps=settings["steps"], per_device_train_batch_size=settings["batch"],
            learning_rate=settings["learning_rate"], warmup_steps=settings["steps"] // 10,
            lr_scheduler_type="cosine", bf16=bf16, use_cpu=True, save_strategy="no", report_to="none",
            logging_steps=20, seed=bench.run.seed,
        )  # fmt: skip
        trainer_class(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    return model.eval()


@torch.no_grad()
def scores(model: SentenceTransformer | MultiVectorEncoder, queries: list[str], corpus: list[str]) -> Tensor:
    """Cosine (InfoNCE), inner products (MarginMSE) or MaxSim of every pair: `(n, m)`."""
    tensors = {} if isinstance(model, MultiVectorEncoder) else {"convert_to_tensor": True}
    asked, kept = model.encode_query(queries, **tensors), model.encode_document(corpus, **tensors)
    return model.similarity(asked, kept).float().cpu()


def measure(bench: TeacherBench, method: str, bf16: bool, attention: str | None) -> dict[str, Any]:
    """One row; `Rabtriever` stands for the method here, so that tables read all rows alike."""
    model = train(bench, method, bf16, attention)
    if method == "MarginMSE":
        model.similarity_fn_name = "dot"
    found = bench.compare(lambda split: scores(model, split.queries, bench.task.corpus))
    return {"task": bench.run.task, "seed": bench.run.seed, "method": method, **found}


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file, row by row."""
    parser = bench_parser(__doc__, "runs/benchmark/bi-encoders")
    parser.add_argument("--rows", nargs="+", default=METHODS, choices=METHODS, help="which methods")
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    parser.add_argument("--attn_implementation", help="of the backbone; eager trains faster in bf16 on CPUs")
    arguments = parser.parse_args()
    for bench in benches(arguments):
        for method in arguments.rows:
            precision = {"bf16": arguments.bf16, "attention": arguments.attn_implementation}
            new = {**measure(bench, method, **precision), **SETTINGS[bench.run.task], **precision}
            rows = with_earlier("benchmarks.bi_encoders", [new], ("task", "seed", "method"))
            print(write_result("benchmarks.bi_encoders", SETTINGS, rows, []))


if __name__ == "__main__":
    main()
