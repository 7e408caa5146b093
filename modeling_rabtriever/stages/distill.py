"""Stage 2: distils the teacher into Rabtriever.

Usage:
    python -m training.distill --config household
    python -m training.distill --config household --teacher path/or/hub-id --embedding_dim 256
    python -m training.distill --data path/to/beir --output_dir runs/mine --cross_encoder path/or/hub-id \\
        --model_name_or_path Qwen/Qwen3-0.6B --true_answer " yes" --false_answer " no"
    python -m training.distill --data path/to/beir --output_dir runs/mine --teacher http://localhost:8000/v1 \\
        --model_name_or_path Qwen/Qwen3-32B --true_answer yes --false_answer no \\
        --encoder sentence-transformers/all-MiniLM-L6-v2

Reads <output_dir>/teacher/model unless --teacher is given. Writes <output_dir>/student/model, a folder that AutoModel
loads. Caches teacher scores in <output_dir>/states, one cache per teacher and task, for later runs with the same ones.

--cross_encoder distils a cross-encoder instead of the reranker. The student is then built on the backbone of --teacher,
or on any language model (--model_name_or_path).

--teacher http://localhost:8000/v1 distils a reranker behind a server, such as vLLM's or llama.cpp's. It needs the Hub
id or folder of its tokenizer (--model_name_or_path) and an encoder for the student (--encoder). A key for the server is
read from the environment variable RABTRIEVER_API_KEY. --dry_run true prints what the teacher will read, and stops. The
teacher's prompt is kept in <output_dir>/student/teacher_prompt, a --model_name_or_path for other commands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import set_seed

from .. import GenerativeRerankerModel, RabtrieverProcessor
from ..distillation.bill import teacher_bill
from ..distillation.cache_fingerprints import states_folder
from ..distillation.cross_encoders import cross_encoder
from ..distillation.distillation_config import RabtrieverDistillationConfig
from ..distillation.distillation_trainer import RabtrieverDistillationTrainer
from ..distillation.student_arguments import StudentArguments, TeacherSourceArguments
from ..distillation.teacher_states import TeacherScores
from ..distillation.training import (
    finished,
    fresh_student,
    make_trainer,
    reranker_scores,
    scorer_scores,
    trained_rows,
)
from ..loading import load_model
from ..reranking.backbone import BackboneArguments, build_reranker
from ..reranking.prompts import PromptArguments, SourceArguments
from ..served.address import is_address
from ..served.teacher import ServedTeacher
from ..tasks.beir import RetrievalTask, Split, with_unlabelled
from ..tasks.named import check_leakage, load_task
from ..trainers.processes import on_main, say
from ..trainers.stage_folder import StageFolder, earlier_model, file_digest, model_digest
from . import program
from .recipe import parse_stage
from .run import RunArguments
from .served import SERVED, identity, open_teacher
from .student_checks import check, check_sources

ARGUMENTS = (
    RunArguments,
    TeacherSourceArguments,
    StudentArguments,
    SourceArguments,
    PromptArguments,
    RabtrieverDistillationConfig,
)
PROMPT = "teacher_prompt"  # folder of a served teacher's prompt, for the option model_name_or_path elsewhere


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained student."""
    arguments = parse_stage("distill", ARGUMENTS, argv)
    run, source, shape, language_model, prompt, config = arguments
    check_sources(source, language_model, prompt)
    task = load_task(run.data, run.skip_bad)
    _, dev = run.splits(task)
    train, inputs = training_queries(task, run.train_split, source.unlabelled_queries, config.output_dir, run.skip_bad)
    reranker = _reranker(arguments)
    inputs |= _teacher_fingerprints(source, reranker)
    states = states_folder(source.states or Path(config.output_dir) / "states", inputs)
    stage = _stage(arguments, reranker, inputs)
    if stage.done:
        say(f"student: already done, in {stage.model}")
        return stage.model
    check(arguments, task)
    _say_bill(source, config, reranker, task, train)
    if source.dry_run:
        return stage.model
    stage.claim()
    teacher = _loaded(reranker, arguments, chain(task.corpus, train.queries))
    set_seed(config.seed)
    student = fresh_student(teacher, shape, config, source.trust_remote_code)
    config.output_dir = str(stage.checkpoints)
    scores = _scores(source, teacher, task, train, config, states)
    _train(stage, make_trainer(student, scores, task, train, dev, config), teacher)
    return stage.model


def _reranker(arguments: tuple[Any, ...]) -> ServedTeacher | str | None:
    """The reranker behind a server, or the folder or Hub id of one; `None` if a language model takes its place."""
    run, source, _, language_model, prompt, config = arguments
    if is_address(source.teacher):
        return open_teacher(source, language_model, prompt, run.data, source.trust_remote_code)
    if language_model.model_name_or_path is not None:
        return None
    remedy = f"run {program('train_reranker')} first, or pass --teacher"
    return earlier_model(source.teacher, config.output_dir, "teacher", remedy)


def _teacher_fingerprints(source: TeacherSourceArguments, reranker: ServedTeacher | str | None) -> dict[str, str]:
    """Fingerprints of what scores the pairs."""
    found = {}
    if isinstance(reranker, ServedTeacher):
        found["teacher"] = identity(reranker, source)
    elif reranker is not None:
        found["teacher"] = model_digest(reranker)
    if source.cross_encoder is not None:
        found["cross_encoder"] = model_digest(source.cross_encoder)
    return found


def _stage(arguments: tuple[Any, ...], reranker: ServedTeacher | str | None, inputs: dict[str, str]) -> StageFolder:
    """The folder of the stage. A server may have another address when an interrupted run resumes."""
    run, source, shape, language_model, prompt, config = arguments
    if shape.other_encoder is not None:
        inputs = {**inputs, "encoder": model_digest(shape.other_encoder)}
    recorded = replace(source, teacher=SERVED) if isinstance(reranker, ServedTeacher) else source
    settings = (run, recorded, shape, language_model, prompt, config)
    return StageFolder(Path(config.output_dir) / "student", settings, inputs, run.overwrite)


def _say_bill(
    source: TeacherSourceArguments,
    config: RabtrieverDistillationConfig,
    reranker: ServedTeacher | str | None,
    task: RetrievalTask,
    train: Split,
) -> None:
    """Says how many pairs the teacher will read, if it is behind a server or nothing else was asked for."""
    processor = None
    if isinstance(reranker, ServedTeacher):
        processor = reranker.processor
    elif not source.dry_run:
        return
    elif reranker is not None and source.cross_encoder is None:
        processor = RabtrieverProcessor.from_pretrained(reranker)
    asked = train.take(trained_rows(len(train), config)).queries
    say(teacher_bill(config.candidates, asked, task.corpus, processor))


def _loaded(
    reranker: ServedTeacher | str | None, arguments: tuple[Any, ...], texts: Iterable[str]
) -> ServedTeacher | GenerativeRerankerModel:
    """The reranker behind its server or on the device of training; an untrained one for a cross-encoder's student."""
    run, source, _, language_model, prompt, config = arguments
    if isinstance(reranker, ServedTeacher):
        return reranker
    if reranker is not None:
        found = load_model(reranker, source.dtype, trust_remote_code=source.trust_remote_code)
    else:
        dtype = "float32" if source.dtype == "auto" else source.dtype
        backbone = BackboneArguments(**vars(language_model), dtype=dtype)
        prompt = prompt.for_task(run.data)
        found = build_reranker(backbone, prompt, texts, config.seed, source.trust_remote_code)
    return found.to(config.device).eval()


def _scores(
    source: TeacherSourceArguments,
    reranker: ServedTeacher | GenerativeRerankerModel,
    task: RetrievalTask,
    train: Split,
    config: RabtrieverDistillationConfig,
    folder: Path,
) -> TeacherScores:
    """The cache of the scores of the reranker, or of the cross-encoder that is distilled instead."""
    if source.cross_encoder is None:
        return reranker_scores(reranker, task, train, config, folder)
    device = str(config.device)
    scorer = cross_encoder(source.cross_encoder, train.queries, task.corpus, device, source.trust_remote_code)
    return scorer_scores(scorer, task, train, folder)


def _train(
    stage: StageFolder, trainer: RabtrieverDistillationTrainer, teacher: ServedTeacher | GenerativeRerankerModel
) -> None:
    """Trains the student and saves it, with the prompt of a served teacher beside it."""
    stage.train(trainer)
    student = finished(trainer)
    stage.save(trainer, student)
    if isinstance(teacher, ServedTeacher):
        on_main(lambda: teacher.processor.save_pretrained(stage.folder / PROMPT))
    stage.finish(teacher_pairs=trainer.teacher_pairs, embedding_dim=student.config.embedding_dim)


def training_queries(
    task: RetrievalTask, split: str, unlabelled: str | None, output_dir: str, skip_bad: bool = False
) -> tuple[Split, dict[str, str]]:
    """The training queries of a student, and the fingerprints of task and file.

    `{output_dir}` in the name of the file of unlabelled queries stands for the folder of the run.

    Raises:
        ValueError: the task has no such split, the file is malformed (`with_unlabelled`), or it holds queries of
            another split (`check_leakage`).
    """
    train, inputs = task.split(split), {"task": task.fingerprint()}
    if unlabelled is not None:
        path = unlabelled.replace("{output_dir}", output_dir)
        train = with_unlabelled(train, path, skip_bad)
        check_leakage(replace(task, splits={**task.splits, split: train}))
        inputs["unlabelled_queries"] = file_digest(path)
    return train, inputs
