"""Stage 1: trains the teacher, a generative reranker.

Usage:
    python -m training.train_reranker --config household
    python -m training.train_reranker --config esconv --data path/to/esconv --max_steps 100

Starts from --model_name_or_path, or else from <output_dir>/backbone/model, which the stage pretrain writes. Writes
<output_dir>/teacher/model, a folder that AutoModel loads. If interrupted, it resumes from its last checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import GenerativeRerankerConfig
from ..reranking.backbone import BackboneArguments, build_reranker, check_student
from ..reranking.pairs import NegativeArguments
from ..reranking.prompts import PromptArguments
from ..reranking.reranker_trainer import RerankerTrainingConfig, check_batches
from ..reranking.training import (
    LoraArguments,
    finished,
    group_size,
    make_trainer,
    tokenizer_texts,
)
from ..reranking.watch import WATCHED
from ..tasks.beir import RetrievalTask
from ..tasks.named import load_task
from ..trainers.processes import say
from ..trainers.stage_folder import StageFolder, earlier_model, model_digest
from . import program
from .checks import NOTHING, Earlier, check_positive
from .recipe import parse_stage
from .run import RunArguments
from .training_checks import check_language_model, check_training

ARGUMENTS = (
    RunArguments,
    BackboneArguments,
    PromptArguments,
    NegativeArguments,
    LoraArguments,
    RerankerTrainingConfig,
)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained teacher."""
    arguments = parse_stage("train_reranker", ARGUMENTS, argv)
    run, backbone, prompt, negatives, lora, config = arguments
    prompt = prompt.for_task(run.data)
    backbone = _with_source(backbone, config.output_dir)
    task = load_task(run.data, run.skip_bad)
    train, dev = run.splits(task)
    stage = StageFolder(
        Path(config.output_dir) / "teacher",
        (run, backbone, prompt, negatives, lora, config),
        {"task": task.fingerprint(), "backbone": model_digest(str(backbone.model_name_or_path))},
        run.overwrite,
    )
    if stage.done:
        say(f"teacher: already done, in {stage.model}")
        return stage.model
    check(arguments, task)
    stage.claim()
    reranker = build_reranker(
        backbone, prompt, tokenizer_texts(task, train, prompt), config.seed, config.trust_remote_code
    )
    config.output_dir = str(stage.checkpoints)
    adapters = lora.peft_config(reranker.config.text_config.hidden_size)
    trainer = make_trainer(reranker, task, train, dev, negatives, config, adapters)
    stage.train(trainer)
    stage.save(trainer, finished(reranker, trainer, lora))
    pairs = trainer.state.global_step * trainer.get_total_train_batch_size(config)
    stage.finish(pairs=pairs, parameters=reranker.num_parameters(), relevant_share=1 / trainer.group_size)
    if trainer.corpus_watch is not None:
        say(trainer.corpus_watch.line(trainer.state.log_history))
    return stage.model


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> Any:
    """Checks the settings before the first step; in a pipeline, before earlier stages have run.

    Args:
        arguments: instances of `ARGUMENTS`.
        task: the training data.
        earlier: the earlier stages of the same pipeline run.

    Returns:
        The configuration of the language model that this stage will write.

    Raises:
        ValueError: a split, a file or a model is missing, or a setting cannot be used.
    """
    run, backbone, prompt, negatives, lora, config = arguments
    train, dev = run.splits(task)
    check_training(config, "loss", *WATCHED)
    prompt.for_task(run.data)
    check_positive(dev_groups=config.dev_groups)
    check_batches(config, group_size(task, train, dev, negatives))
    if backbone.model_name_or_path is None and "pretrain" in earlier:
        return earlier["pretrain"]
    backbone = _with_source(backbone, config.output_dir)
    found = check_language_model(backbone, config, config.trust_remote_code, lora)
    check_student(GenerativeRerankerConfig(text_config=found, true_token_id=0, false_token_id=1))
    return found


def _with_source(backbone: BackboneArguments, output_dir: str) -> BackboneArguments:
    remedy = f"run {program('pretrain')} first, or pass --model_name_or_path"
    source = earlier_model(backbone.model_name_or_path, output_dir, "backbone", remedy)
    return replace(backbone, model_name_or_path=source)
