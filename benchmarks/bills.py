"""What every method of an equal-bill comparison is given, and our student that runs the bill up."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, set_seed

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.teacher_states import TeacherStates
from modeling_rabtriever.distillation.training import finished, fresh_student, make_trainer, reranker_scores
from modeling_rabtriever.files import write_folder, write_json, write_tensors
from modeling_rabtriever.tasks.beir import RetrievalTask, Split

BACKBONE = "teacher's backbone"


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the students of one task train; the same for every method but for what is said otherwise.

    Args:
        steps: optimizer steps.
        batch: queries per step.
        labels_batch: queries per step of methods that read one document per query.
        rates: learning rates of the encoder, of which each method takes its best on dev.
        candidates: documents of a query that the teacher is asked about at the start.
        rounds: how often our student draws more.
        drawn: documents it draws per query and round.
        swapped: queries that exchanged names make of the labelled ones, for the teacher to judge.
        labels: share of the labels in what our listwise KL aims at.
        in_batch: whether ours takes the other queries' documents as irrelevant ones.
        predictor_rate: learning rate of our predictor.
        damping: of our whitening, where the start is no sentence encoder.
        temperature: of the listwise KL, ours and theirs.
        bf16: whether everything trains in mixed precision.
    """

    steps: int
    batch: int
    labels_batch: int
    rates: tuple[float, ...]
    candidates: int
    rounds: int = 0
    drawn: int = 0
    swapped: int = 0
    labels: float = 0.0
    in_batch: bool = False
    predictor_rate: float = 1e-3
    damping: float | None = 0.1
    temperature: float = 2.0
    bf16: bool = False


class Bill(NamedTuple):
    """Queries, and per query the documents its teacher was asked about."""

    queries: list[str]
    relevant: list[list[int]]  # none for a query nobody judged
    documents: Tensor  # (n, c) corpus rows
    scores: Tensor  # (n, c) the teacher's log-odds

    @property
    def judged(self) -> list[int]:
        """Rows of the queries with labels."""
        return [row for row, relevant in enumerate(self.relevant) if relevant]


def start_name(encoder: str | None) -> str:
    """What tables call the model that all methods start from."""
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
    """Our student at one rate, the bill it ran up, and its seconds without the teacher's; a finished one is read.

    Args:
        teacher: the reranker.
        task: corpus and splits.
        train: the queries, with or without labels.
        setting: how it trains.
        rate: the encoder's learning rate.
        folder: of the run.
        states: folder of the teacher's cache, which runs share: a pair is asked once.
        shape: what it starts from; `None` for the teacher's backbone.
        seed: of everything random.
        bill: what the teacher is asked about, if not what the student draws.
    """
    batches = {"per_device_train_batch_size": setting.batch, "max_steps": setting.steps, "seed": seed}
    losses = {"listwise_form": "forward", "temperature": setting.temperature, "mse_weight": 0.0, "kl_weight": 0.0}
    losses |= {"label_share": setting.labels}
    draws = {"initial_candidates": setting.candidates, "refresh_rounds": setting.rounds}
    draws |= {"refresh_candidates": setting.drawn or 1, "in_batch_documents": setting.in_batch}
    pools = None if bill is None else bill.documents.tolist()
    if pools is not None:
        draws |= {"initial_candidates": len(pools[0]), "refresh_rounds": 0}
    rates = {"learning_rate": setting.predictor_rate, "encoder_learning_rate": rate, "lr_scheduler_type": "cosine"}
    quiet = {"report_to": "none", "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no"}
    places = {"output_dir": str(folder / "checkpoints"), "logging_steps": max(1, setting.steps // 10)}
    config = RabtrieverDistillationConfig(
        **{
            **batches, **losses, **draws, **rates, **quiet, **places, "train_encoder": "full", "use_cpu": True,
            "bf16": setting.bf16, "whitening_damping": setting.damping, "warmup_steps": setting.steps // 10,
        }
    )  # fmt: skip
    done, bill_file = folder / "done.json", folder / "bill.safetensors"
    if not done.exists():
        scores = reranker_scores(teacher, task, train, config, states)
        set_seed(seed)
        student = fresh_student(teacher, shape or StudentArguments(), config, task, train)
        trainer = make_trainer(student, scores, task, train, task.split("dev"), config, pools)
        asking = _timed(scores)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        student = finished(trainer)
        write_folder(folder / "model", lambda new: student.save_pretrained(str(new)))
        asked = trainer.candidates
        rows = torch.arange(len(train))[:, None].expand_as(asked)
        write_tensors(bill_file, {"documents": asked, "scores": scores.logits(rows, asked)})
        log = trainer.state.log_history
        write_json(done, {"seconds": seconds - sum(asking), "asking": sum(asking), "log": log})
    student = AutoModel.from_pretrained(folder / "model").eval()
    bill = Bill(train.queries, [list(own) for own in train.relevant], **load_file(bill_file))
    return student, bill, float(json.loads(done.read_text())["seconds"])


def student_scores(student: RabtrieverModel, queries: Sequence[str], corpus: Sequence[str]) -> Tensor:
    """Scores of the whole corpus, `(n, m)`."""
    return student.similarity(student.encode_query(queries), student.encode_document(corpus)).cpu()


def _timed(scores: TeacherStates) -> list[float]:
    """The seconds that the teacher will take, filled while it is asked."""
    spent: list[float] = []
    judge = scores.judge

    def timed(queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        started = time.monotonic()
        found = judge(queries, documents)
        spent.append(time.monotonic() - started)
        return found

    scores.judge = timed  # type: ignore[method-assign]
    return spent
