"""How much faster the student trains from cached teacher states than with the teacher run inside the step.

Usage:
    python -m benchmarks.student_training             # a minute on two cores

The random backbone of benchmarks.teacher_scoring; prefixes of 128 tokens, suffixes of 32. A step is a batch of queries
with their candidates: loss, gradient, update. "inside" first scores the pairs of the batch with the teacher, as the
trainer fills its cache (each document is read once per batch); "cached" reads existing scores. Blocks alternate, so
that a noisy machine affects both sides of a ratio alike.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.results import bar, write_result
from benchmarks.teacher_scoring import PREFIX, SUFFIX, TextMaker, make_reranker
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.distillation_trainer import RabtrieverDistillationTrainer
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.teacher_states import TeacherStates
from modeling_rabtriever.distillation.training import fresh_student

QUERIES, DOCUMENTS, CANDIDATES, BATCH = 64, 64, 16, 16


def make_trainer(folder: Path) -> RabtrieverDistillationTrainer:
    """A trainer whose first candidates all have scores."""
    reranker = make_reranker()
    texts = TextMaker(reranker.processor, random.Random(0))
    queries = [texts.query(SUFFIX) for _ in range(QUERIES)]
    documents = [texts.document(PREFIX) for _ in range(DOCUMENTS)]
    dataset = Dataset.from_dict({"query": queries, "relevant": [[row % DOCUMENTS] for row in range(QUERIES)]})
    args = RabtrieverDistillationConfig(
        output_dir=str(folder / "checkpoints"),
        report_to="none",
        use_cpu=True,
        train_encoder="none",
        mse_weight=0.1,
        kl_weight=0.1,
        candidates=CANDIDATES,
        rounds=0,
        per_device_train_batch_size=BATCH,
    )
    trainer = RabtrieverDistillationTrainer(
        model=fresh_student(reranker, StudentArguments(embedding_dim=256), args),
        teacher=TeacherStates(folder / "states", reranker, queries, documents),
        documents=documents,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(4)),
        args=args,
    )
    trainer.refresh(0)
    trainer.create_optimizer()
    return trainer


def step(trainer: RabtrieverDistillationTrainer, rows: torch.Tensor, inside: bool) -> None:
    """One update; if `inside`, the teacher scores the pairs first."""
    if inside:
        pairs = sorted((document, int(row)) for row in rows for document in trainer.candidates[row].tolist())
        documents, queries = torch.tensor(pairs).T
        with torch.no_grad():
            trainer.teacher.score_pairs(queries, documents)
    trainer.compute_loss(trainer.model, {"rows": rows}).backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def measure_block(trainer: RabtrieverDistillationTrainer, block: int, cached_steps: int) -> dict[str, Any]:
    """Seconds per pair of both ways: one step with the teacher inside, `cached_steps` from the cache."""
    generator = torch.Generator().manual_seed(block)
    found: dict[str, Any] = {"block": block}
    for name, steps in (("inside", 1), ("cached", cached_steps)):
        batches = [torch.randperm(QUERIES, generator=generator)[:BATCH] for _ in range(steps)]
        start = time.perf_counter()
        for rows in batches:
            step(trainer, rows, name == "inside")
        found[f"{name}_seconds_per_pair"] = (time.perf_counter() - start) / (steps * BATCH * CANDIDATES)
    return found


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--cached_steps", type=int, default=20, help="steps from the cache per block")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Path(folder))
        step(trainer, torch.arange(BATCH), inside=True)  # warm-up
        rows = [measure_block(trainer, block, arguments.cached_steps) for block in range(arguments.blocks)]
    ratios = [row["inside_seconds_per_pair"] / row["cached_seconds_per_pair"] for row in rows]
    name = "training from cached states vs the teacher inside the step, times faster per pair"
    bars = [bar(name, statistics.median(ratios), ">=", 20, len(ratios), (min(ratios), max(ratios)))]
    settings = {**vars(arguments), "queries": QUERIES, "documents": DOCUMENTS, "candidates": CANDIDATES, "batch": BATCH}
    settings |= {"prefix": PREFIX, "suffix": SUFFIX, "dtype": "float32", "interval": "smallest and largest block"}
    print(write_result("benchmarks.student_training", settings, rows, bars))


if __name__ == "__main__":
    main()
