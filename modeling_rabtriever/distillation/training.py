"""Distillation from Python: a teacher, a task and settings in, a trained student out."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from .. import GenerativeRerankerModel, RabtrieverModel
from ..progress import lines_in_logs
from ..reranking.watch import watch_nothing
from ..served.teacher import ServedTeacher
from ..tasks.beir import DEV, RetrievalTask, Split
from ..trainers.checkpoints import configured_checkpoint
from ..trainers.run_lock import only_run
from .cross_encoders import PairScorer
from .distillation_config import RabtrieverDistillationConfig
from .distillation_trainer import RabtrieverDistillationTrainer
from .encoder_training import finish_encoder, train_encoder
from .encoders import other_encoder, student_of, teachers_encoder
from .served_scores import ServedScores
from .student import TrainingStudent
from .student_arguments import StudentArguments
from .teacher_states import TeacherScores, TeacherStates


@lines_in_logs()
def distill(
    teacher: GenerativeRerankerModel | ServedTeacher,
    task: RetrievalTask,
    config: RabtrieverDistillationConfig,
    shape: StudentArguments | None = None,
    train: Split | None = None,
    dev: Split | None = None,
) -> RabtrieverModel:
    """Trains a student of a reranker, as the stage `distill` does, without the folders of a run.

    Args:
        teacher: the trained reranker, with its processor, or one behind a server.
        task: corpus and splits.
        config: how to train. Checkpoints and the cache of teacher scores go to `config.output_dir`; if
            `config.resume_from_checkpoint` is true, the run resumes from the last checkpoint there.
        shape: what the student starts from, and its predictor; `None` means the defaults.
        train: queries with or without labels; `None` means the task's train split.
        dev: queries with labels to evaluate on during training; `None` means the task's dev split, if it has one.

    Returns:
        The student, in evaluation mode, with its processor.

    Raises:
        ValueError: a setting does not fit the task, the teacher or the encoder.

    Examples:
        >>> from modeling_rabtriever import GenerativeRerankerModel, example
        >>> from modeling_rabtriever.distillation import RabtrieverDistillationConfig, distill
        >>> from modeling_rabtriever.tasks import load_beir
        >>> teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
        >>> config = RabtrieverDistillationConfig("runs/student", max_steps=600)
        >>> student = distill(teacher, load_beir("path/to/folder"), config)
        >>> student.save_pretrained("runs/student/model")
    """
    train = task.split("train") if train is None else train
    dev = task.splits.get(DEV) if dev is None else dev
    set_seed(config.seed)
    if not isinstance(teacher, ServedTeacher):
        teacher = teacher.to(config.device).eval()  # type: ignore[arg-type]  # transformers wraps the signature away
    folder = Path(str(config.output_dir))
    with only_run(folder):
        student = fresh_student(teacher, shape or StudentArguments(), config)
        scores = reranker_scores(teacher, task, train, config, folder / "states")
        trainer = make_trainer(student, scores, task, train, dev, config)
        trainer.train(resume_from_checkpoint=configured_checkpoint(config))
    return finished(trainer)


def fresh_student(
    teacher: GenerativeRerankerModel | ServedTeacher,
    shape: StudentArguments,
    config: RabtrieverDistillationConfig,
    trust_remote_code: bool = False,
) -> TrainingStudent:
    """An untrained student on the device of training, its encoder prepared for training as `config` says.

    Args:
        teacher: the reranker; if another teacher is distilled, the language model the student is built on.
        shape: what the student starts from, and its predictor.
        config: `train_encoder` says how the encoder trains.
        trust_remote_code: whether code from the encoder's repository may run.

    Raises:
        ValueError: settings contradict each other, or do not fit the encoder or the teacher.
    """
    if isinstance(teacher, ServedTeacher):
        check_served(shape, config)
        direction = torch.ones(1)  # all that is known of its state is the log-odds
    else:
        direction = teacher.answer_direction
    if shape.other_encoder is not None:
        encoder = other_encoder(shape.other_encoder, teacher.processor, trust_remote_code=trust_remote_code)
    else:
        assert isinstance(teacher, GenerativeRerankerModel)
        encoder = teachers_encoder(teacher, shape.layers, config.train_encoder)
    student = student_of(encoder, direction, shape)
    train_encoder(student, config.train_encoder)
    device = config.device if isinstance(teacher, ServedTeacher) else teacher.device
    return student.to(device)  # type: ignore[arg-type]  # transformers wraps the signature away


def check_served(shape: StudentArguments, config: RabtrieverDistillationConfig) -> None:
    """Raises a ValueError if a student with these settings cannot learn from a teacher behind a server."""
    if shape.other_encoder is None or shape.predictor_type == "paper":
        raise ValueError(
            f"encoder is {shape.encoder!r}, predictor_type is {shape.predictor_type!r}; accepted with a teacher behind "
            "a server, whose weights are not here: folder or Hub id of a text model, and hadamard"
        )
    if config.mse_weight or config.kl_weight:
        raise ValueError(
            f"mse_weight is {config.mse_weight} and kl_weight is {config.kl_weight}; accepted with a teacher behind a "
            "server, which gives scores without states: 0 for both"
        )


def reranker_scores(
    reranker: GenerativeRerankerModel | ServedTeacher,
    task: RetrievalTask,
    train: Split,
    config: RabtrieverDistillationConfig,
    folder: Path,
) -> TeacherScores:
    """The cache of a reranker's scores of these queries and the corpus, with hidden states if a loss needs them."""
    if isinstance(reranker, ServedTeacher):
        return ServedScores(folder, reranker, train.queries, task.corpus)
    return TeacherStates(folder, reranker, train.queries, task.corpus, config.needs_states)


def scorer_scores(scorer: PairScorer, task: RetrievalTask, train: Split, folder: Path) -> TeacherScores:
    """The cache of scores by a teacher that has no hidden states."""
    identity = {"scorer": scorer.identity, "task": task.fingerprint(), "split": train.name}
    return TeacherScores(folder, len(train), scorer.score_pairs, identity)


def make_trainer(
    student: TrainingStudent,
    teacher: TeacherScores,
    task: RetrievalTask,
    train: Split,
    dev: Split | None,
    config: RabtrieverDistillationConfig,
    candidates: Tensor | None = None,
) -> RabtrieverDistillationTrainer:
    """The trainer of one student; without a dev split there are no evaluations during training."""
    if dev is None:
        watch_nothing(task, config)
    rows = trained_rows(len(train), config)
    return RabtrieverDistillationTrainer(
        model=student,
        teacher=teacher,
        documents=task.corpus,
        train_dataset=labelled_queries(train.take(rows)).add_column("row", list(rows)),
        eval_dataset=None if dev is None else labelled_queries(dev),
        args=config,
        candidates=None if candidates is None else candidates[torch.tensor(rows)],
    )


def trained_rows(queries: int, config: RabtrieverDistillationConfig) -> Sequence[int]:
    """Rows of the training queries that the steps come to, in their order: all, or a random sample with `config.seed`.

    Nothing is drawn for the other queries, and the teacher does not score them.
    """
    read = config.max_steps * config.per_device_train_batch_size * config.gradient_accumulation_steps
    if not 0 < read < queries:
        return range(queries)
    return sorted(random.Random(f"{config.seed}-queries").sample(range(queries), read))


def finished(trainer: RabtrieverDistillationTrainer) -> RabtrieverModel:
    """The trained student as it is saved: adapters and whitening merged into its weights, all of them frozen."""
    finish_encoder(trainer.model, trainer.args.train_encoder)
    return trainer.model.served()


def labelled_queries(split: Split) -> Dataset:
    """The columns the trainer reads: `query` and `relevant` (corpus rows)."""
    return Dataset.from_dict({"query": list(split.queries), "relevant": [list(rows) for rows in split.relevant]})
