"""Checks of a student's settings before the first step, and in a pipeline before its teacher is trained."""

from pathlib import Path
from typing import Any

from ..distillation.encoder_folders import check_text_encoder, read_settings
from ..distillation.encoders import backbone_poolings, first_layers, student_config
from ..distillation.training import check_served
from ..evaluation.metrics import TABLE_METRICS
from ..reranking.backbone import BackboneArguments
from ..reranking.prompts import PromptArguments, SourceArguments, read_prompt
from ..served.address import is_address
from ..served.client import checked_address
from ..tasks.beir import RetrievalTask
from ..trainers.stage_folder import earlier_model
from . import program
from .checks import NOTHING, Earlier, check_file, check_folder, check_model, check_positive, check_teacher
from .training_checks import check_language_model, check_training


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> None:
    """Checks the settings, as `stages.train_reranker.check` does."""
    run, teacher_source, shape, source, prompt, config = arguments
    check_sources(teacher_source, source, prompt)
    run.splits(task)
    check_training(config, *TABLE_METRICS)
    if teacher_source.states is not None:
        check_folder("states", teacher_source.states)
    config.check_candidates(len(task.corpus))
    if teacher_source.unlabelled_queries is not None:
        path = teacher_source.unlabelled_queries.replace("{output_dir}", config.output_dir)
        if not ("generate_queries" in earlier and Path(path) == Path(config.output_dir) / "queries" / "queries.jsonl"):
            check_file("unlabelled_queries", path)
    if teacher_source.cross_encoder is not None:
        check_model("cross_encoder", teacher_source.cross_encoder, trust_remote_code=teacher_source.trust_remote_code)
    text_config = None
    if is_address(teacher_source.teacher):
        check_served(shape, config)
        read_prompt(source, prompt, run.data, teacher_source.trust_remote_code)
    elif source.model_name_or_path is not None:
        prompt.for_task(run.data)
        text_config = check_language_model(BackboneArguments(**vars(source)), config, teacher_source.trust_remote_code)
    elif teacher_source.teacher is None and "train_reranker" in earlier:
        text_config = earlier["train_reranker"]
    else:
        remedy = f"run {program('train_reranker')} first, or pass --teacher"
        path = earlier_model(teacher_source.teacher, config.output_dir, "teacher", remedy)
        text_config = check_teacher(path, teacher_source.trust_remote_code)
    if shape.other_encoder is None:
        student_config(first_layers(text_config, shape.layers), backbone_poolings(config.train_encoder), shape)
    else:
        found = check_model("encoder", shape.other_encoder, trust_remote_code=teacher_source.trust_remote_code)
        check_text_encoder(shape.other_encoder, found)
        settings = read_settings(shape.other_encoder)
        student_config(found, [settings.pooling], shape, settings.is_retriever, settings.unit_vectors)


def check_sources(teacher_source: Any, source: SourceArguments, prompt: PromptArguments) -> None:
    """Raises a ValueError if the arguments that name teacher and backbone contradict each other."""
    served = is_address(teacher_source.teacher)
    if served:
        checked_address(str(teacher_source.teacher))
    if served and (source.model_name_or_path is None or teacher_source.cross_encoder is not None):
        raise ValueError(
            f"model_name_or_path is {source.model_name_or_path!r}, cross_encoder is {teacher_source.cross_encoder!r}; "
            "accepted with a teacher behind a server: Hub id or folder of its tokenizer, and none"
        )
    if not served and teacher_source.served_model is not None:
        raise ValueError(
            f"served_model is {teacher_source.served_model!r}, teacher is {teacher_source.teacher!r}; accepted: only "
            "with the address of a server"
        )
    check_positive(requests_in_flight=teacher_source.requests_in_flight)
    if (
        not served
        and source.model_name_or_path is not None
        and (teacher_source.teacher is not None or teacher_source.cross_encoder is None)
    ):
        raise ValueError(
            f"model_name_or_path is {source.model_name_or_path!r}; accepted: only with cross_encoder and without "
            "teacher, whose backbone would be the student's otherwise, or with the address of a server as teacher"
        )
    if source.model_name_or_path is None and (changed := prompt.changed()):
        raise ValueError(
            f"{', '.join(changed)} given, but the student uses the teacher's prompt; accepted: only with "
            "model_name_or_path"
        )
