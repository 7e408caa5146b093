"""Stage 2: distils the teacher into Rabtriever.

Usage:
    python -m training.distill --config household
    python -m training.distill --config household --teacher path/or/hub-id --embedding_dim 256
    python -m training.distill --data path/to/beir --output_dir runs/mine --cross_encoder path/or/hub-id \\
        --model_name_or_path Qwen/Qwen3-0.6B --true_answer " yes" --false_answer " no"

Reads <output_dir>/teacher/model unless --teacher is given. Writes <output_dir>/student/model, a folder that AutoModel
loads. Caches teacher scores in <output_dir>/states, one cache per teacher and task, for later runs with the same ones.

--cross_encoder distils a cross-encoder instead of the reranker. The student is then built on the backbone of --teacher,
or on any language model (--model_name_or_path).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import set_seed

from ..distillation.cross_encoders import cross_encoder
from ..distillation.distillation_config import RabtrieverDistillationConfig
from ..distillation.student_arguments import StudentArguments, TeacherSourceArguments
from ..distillation.teacher_states import TeacherScores
from ..distillation.training import finished, fresh_student, make_trainer, reranker_scores, scorer_scores
from ..loading import load_model
from ..reranking.backbone import BackboneArguments, PromptArguments, SourceArguments, build_reranker
from ..tasks.beir import RetrievalTask, Split, with_unlabelled
from ..tasks.named import check_leakage, load_task
from ..trainers.processes import say
from ..trainers.stage_folder import StageFolder, earlier_model, file_digest, model_digest
from . import program
from .recipe import parse_stage
from .run import RunArguments
from .student_checks import check, check_sources

ARGUMENTS = (
    RunArguments,
    TeacherSourceArguments,
    StudentArguments,
    SourceArguments,
    PromptArguments,
    RabtrieverDistillationConfig,
)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained student."""
    arguments = parse_stage("distill", ARGUMENTS, argv)
    run, teacher_source, shape, source, prompt, config = arguments
    check_sources(teacher_source, source, prompt)
    output = Path(config.output_dir)
    task = load_task(run.data, run.skip_bad)
    _, dev = run.splits(task)
    train, inputs = training_queries(
        task, run.train_split, teacher_source.unlabelled_queries, config.output_dir, run.skip_bad
    )
    reranker_path = None
    if source.model_name_or_path is None:
        remedy = f"run {program('train_reranker')} first, or pass --teacher"
        reranker_path = earlier_model(teacher_source.teacher, config.output_dir, "teacher", remedy)
        inputs["teacher"] = model_digest(reranker_path)
    if teacher_source.cross_encoder is not None:
        inputs["cross_encoder"] = model_digest(teacher_source.cross_encoder)
    folder = states_folder(teacher_source.states or output / "states", inputs)
    if shape.other_encoder is not None:
        inputs["encoder"] = model_digest(shape.other_encoder)
    stage = StageFolder(output / "student", (run, teacher_source, shape, source, prompt, config), inputs, run.overwrite)
    if stage.done:
        say(f"student: already done, in {stage.model}")
        return stage.model
    check(arguments, task)
    if reranker_path is not None:
        reranker = load_model(reranker_path, teacher_source.dtype, trust_remote_code=teacher_source.trust_remote_code)
    else:
        backbone = BackboneArguments(
            **vars(source), dtype="float32" if teacher_source.dtype == "auto" else teacher_source.dtype
        )
        texts = [*task.corpus, *train.queries]
        prompt = prompt.for_task(run.data)
        reranker = build_reranker(backbone, prompt, texts, config.seed, teacher_source.trust_remote_code)
    set_seed(config.seed)
    reranker = reranker.to(config.device).eval()
    student = fresh_student(reranker, shape, config, teacher_source.trust_remote_code)
    config.output_dir = str(stage.checkpoints)
    if teacher_source.cross_encoder is None:
        teacher: TeacherScores = reranker_scores(reranker, task, train, config, folder)
    else:
        device, trusted = str(config.device), teacher_source.trust_remote_code
        scorer = cross_encoder(teacher_source.cross_encoder, train.queries, task.corpus, device, trusted)
        teacher = scorer_scores(scorer, task, train, folder)
    trainer = make_trainer(student, teacher, task, train, dev, config)
    stage.train(trainer)
    served = finished(trainer)
    stage.save(trainer, served)
    stage.finish(teacher_pairs=trainer.teacher_pairs, embedding_dim=served.config.embedding_dim)
    return stage.model


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
