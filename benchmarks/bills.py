"""The training pairs that all methods of an equal-bill comparison share, and our student, which draws them."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import set_seed

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.teacher_states import TeacherStates
from modeling_rabtriever.distillation.training import (
    finished,
    fresh_student,
    make_trainer,
    reranker_scores,
    trained_rows,
)
from modeling_rabtriever.files import write_folder, write_json, write_tensors
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.tasks.beir import RetrievalTask, Split

BACKBONE = "teacher's backbone"


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the students of one task train; the same for every method unless stated otherwise.

    Args:
        steps: optimizer steps.
        batch: queries per step.
        labels_batch: queries per step of methods that read one document per query.
        rates: learning rates of the encoder; each method uses the one that is best on dev.
        candidates: documents of a query that the teacher scores.
        rounds: how often our student draws some of them.
        queries: number of labelled queries that all methods train on, drawn with a fixed seed; `None` means all.
        swapped: queries made by exchanging names in the labelled ones, for the teacher to score.
        labels: share of the labels in the target of our listwise KL; other queries' documents then count as irrelevant.
        predictor_rate: learning rate of our predictor.
        temperature: of the listwise KL, ours and theirs.
        bf16: whether everything trains in mixed precision.
    """

    steps: int
    batch: int
    labels_batch: int
    rates: tuple[float, ...]
    candidates: int
    rounds: int = 0
    queries: int | None = None
    swapped: int = 0
    labels: float = 0.0
    predictor_rate: float = 1e-3
    temperature: float = 2.0
    bf16: bool = False


class Bill(NamedTuple):
    """Queries, and for each query the documents that the teacher scored."""

    queries: list[str]
    relevant: list[list[int]]  # none for a query without labels
    documents: Tensor  # (n, c) corpus rows
    scores: Tensor  # (n, c) the teacher's log-odds

    @property
    def labelled(self) -> list[int]:
        """Rows of the queries with labels."""
        return [row for row, relevant in enumerate(self.relevant) if relevant]


def start_name(encoder: str | None) -> str:
    """The name in tables of the model that all methods start from."""
    return BACKBONE if encoder is None else Path(encoder).name


def our_student(
    teacher: GenerativeRerankerModel,
    task: RetrievalTask,
    train: Split,
    setting: Setting,
    rate: float,
    folder: Path,
    states: Path,
    shape: StudentArguments | None = None,
    seed: int = 0,
    bill: Bill | None = None,
) -> tuple[RabtrieverModel, Bill, float]:
    """Our student at one rate, the pairs it had scored, and its seconds without the teacher's; reuses a finished one.

    Args:
        teacher: the reranker.
        task: corpus and splits.
        train: the queries, with or without labels.
        setting: how it trains.
        rate: the encoder's learning rate.
        folder: of the run.
        states: folder of the cache of teacher scores, which runs share: each pair is scored once.
        shape: what the student starts from; `None` means the teacher's backbone.
        seed: of all random draws.
        bill: the pairs that the teacher scores, instead of those the student draws.
    """
    config = RabtrieverDistillationConfig(
        output_dir=str(folder / "checkpoints"), seed=seed, use_cpu=True, bf16=setting.bf16,
        per_device_train_batch_size=setting.batch, max_steps=setting.steps, warmup_steps=setting.steps // 10,
        lr_scheduler_type="cosine", learning_rate=setting.predictor_rate, encoder_learning_rate=rate,
        candidates=setting.candidates, rounds=setting.rounds, temperature=setting.temperature,
        label_share=setting.labels, eval_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=max(1, setting.steps // 10),
    )  # fmt: skip
    if len(trained_rows(len(train), config)) < len(train):
        raise ValueError(
            f"{setting.steps} steps of {setting.batch} of {len(train)} queries; accepted: steps that read all of them"
        )
    done, bill_file = folder / "done.json", folder / "bill.safetensors"
    if not done.exists():
        scores = reranker_scores(teacher, task, train, config, states)
        set_seed(seed)
        student = fresh_student(teacher, shape or StudentArguments(), config)
        given = None if bill is None else bill.documents
        trainer = make_trainer(student, scores, task, train, task.split("dev"), config, given)
        asking = _timed(scores)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        write_folder(folder / "model", finished(trainer).save_pretrained)
        documents = trainer.candidates
        rows = torch.arange(len(train))[:, None].expand_as(documents)
        write_tensors(bill_file, {"documents": documents, "scores": scores.logits(rows, documents)})
        log = trainer.state.log_history
        write_json(done, {"seconds": seconds - sum(asking), "asking": sum(asking), "log": log})
    student = load_model(folder / "model")
    bill = Bill(train.queries, [list(own) for own in train.relevant], **load_file(bill_file))
    return student, bill, float(json.loads(done.read_text())["seconds"])


def student_scores(student: RabtrieverModel, queries: Sequence[str], corpus: Sequence[str]) -> Tensor:
    """Scores of the whole corpus, `(n, m)`."""
    return student.similarity(student.encode_query(queries), student.encode_document(corpus)).cpu()


def _timed(scores: TeacherStates) -> list[float]:
    """Seconds the teacher takes for each call of `score_pairs`; the list fills as it scores."""
    spent: list[float] = []
    score_pairs = scores.score_pairs

    def timed(queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        started = time.monotonic()
        found = score_pairs(queries, documents)
        spent.append(time.monotonic() - started)
        return found

    scores.score_pairs = timed  # type: ignore[method-assign]
    return spent
