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

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from transformers import set_seed

from .. import GenerativeRerankerModel, RabtrieverProcessor
from ..distillation.bill import teacher_bill
from ..distillation.cross_encoders import cross_encoder
from ..distillation.distillation_config import RabtrieverDistillationConfig
from ..distillation.student_arguments import StudentArguments, TeacherSourceArguments
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
    run, teacher_source, shape, source, prompt, config = arguments
    check_sources(teacher_source, source, prompt)
    output, trusted = Path(config.output_dir), teacher_source.trust_remote_code
    task = load_task(run.data, run.skip_bad)
    _, dev = run.splits(task)
    train, inputs = training_queries(
        task, run.train_split, teacher_source.unlabelled_queries, config.output_dir, run.skip_bad
    )
    reranker_path = processor = served = None
    if is_address(teacher_source.teacher):
        served = open_teacher(teacher_source, source, prompt, run.data, trusted)
        processor = served.processor
        inputs["teacher"] = identity(served, teacher_source)
    elif source.model_name_or_path is None:
        remedy = f"run {program('train_reranker')} first, or pass --teacher"
        reranker_path = earlier_model(teacher_source.teacher, config.output_dir, "teacher", remedy)
        inputs["teacher"] = model_digest(reranker_path)
    if teacher_source.cross_encoder is not None:
        inputs["cross_encoder"] = model_digest(teacher_source.cross_encoder)
    folder = states_folder(teacher_source.states or output / "states", inputs)
    if shape.other_encoder is not None:
        inputs["encoder"] = model_digest(shape.other_encoder)
    # A server may have another address when an interrupted run resumes.
    recorded = replace(teacher_source, teacher=SERVED) if served else teacher_source
    stage = StageFolder(output / "student", (run, recorded, shape, source, prompt, config), inputs, run.overwrite)
    if stage.done:
        say(f"student: already done, in {stage.model}")
        return stage.model
    check(arguments, task)
    if served or teacher_source.dry_run:
        if reranker_path is not None and teacher_source.cross_encoder is None:
            processor = RabtrieverProcessor.from_pretrained(reranker_path)
        asked = train.take(trained_rows(len(train), config)).queries
        say(teacher_bill(config.candidates, asked, task.corpus, processor))
    if teacher_source.dry_run:
        return stage.model
    texts = chain(task.corpus, train.queries)
    teacher = served or local_reranker(reranker_path, teacher_source, source, prompt.for_task(run.data), texts, config)
    set_seed(config.seed)
    student = fresh_student(teacher, shape, config, trusted)
    config.output_dir = str(stage.checkpoints)
    if teacher_source.cross_encoder is None:
        scores = reranker_scores(teacher, task, train, config, folder)
    else:
        device = str(config.device)
        scorer = cross_encoder(teacher_source.cross_encoder, train.queries, task.corpus, device, trusted)
        scores = scorer_scores(scorer, task, train, folder)
    trainer = make_trainer(student, scores, task, train, dev, config)
    stage.train(trainer)
    finished_student = finished(trainer)
    stage.save(trainer, finished_student)
    if served is not None:
        on_main(lambda: served.processor.save_pretrained(stage.folder / PROMPT))
    stage.finish(teacher_pairs=trainer.teacher_pairs, embedding_dim=finished_student.config.embedding_dim)
    return stage.model


def local_reranker(
    path: str | None,
    teacher_source: TeacherSourceArguments,
    source: SourceArguments,
    prompt: PromptArguments,
    texts: Iterable[str],
    config: RabtrieverDistillationConfig,
) -> GenerativeRerankerModel:
    """The reranker in `path`, or an untrained one for the student of a cross-encoder, on the device of training."""
    if path is not None:
        reranker = load_model(path, teacher_source.dtype, trust_remote_code=teacher_source.trust_remote_code)
    else:
        dtype = "float32" if teacher_source.dtype == "auto" else teacher_source.dtype
        backbone = BackboneArguments(**vars(source), dtype=dtype)
        reranker = build_reranker(backbone, prompt, texts, config.seed, teacher_source.trust_remote_code)
    return reranker.to(config.device).eval()


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


def states_folder(root: str | Path, inputs: dict[str, str]) -> Path:
    """Folder of the cache for one teacher and one set of queries; `inputs` are their fingerprints."""
    return Path(root) / hashlib.sha256("".join(inputs.values()).encode()).hexdigest()[:16]
