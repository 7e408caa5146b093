"""Stage 0, optional: a backbone from scratch learns the task's language before it learns to rank.

Usage:
    python -m training.pretrain --config esconv --data path/to/esconv

Language modelling on the training split: each query follows a document relevant to it, in the teacher's prompt. Writes
<output_dir>/backbone/model, a plain causal language model with its tokenizer, from which train_reranker starts. If
interrupted, it resumes from its last checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..reranking.backbone import BackboneArguments, build_reranker, padded
from ..reranking.pretraining import PretrainingTrainer, prompt_dataset
from ..reranking.prompts import PromptArguments
from ..reranking.reranker_trainer import LanguageModelTrainingConfig
from ..reranking.training import tokenizer_texts
from ..reranking.watch import watch_nothing
from ..tasks.beir import RetrievalTask
from ..tasks.named import load_task
from ..trainers.processes import say
from ..trainers.stage_folder import StageFolder, model_digest
from .checks import NOTHING, Earlier
from .recipe import parse_stage
from .run import RunArguments
from .training_checks import check_language_model, check_training

ARGUMENTS = (RunArguments, BackboneArguments, PromptArguments, LanguageModelTrainingConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained backbone."""
    arguments = parse_stage("pretrain", ARGUMENTS, argv)
    run, backbone, prompt, config = arguments
    prompt = prompt.for_task(run.data)
    task = load_task(run.data, run.skip_bad)
    train, dev = run.splits(task)
    inputs = {"task": task.fingerprint(), "backbone": model_digest(str(backbone.model_name_or_path))}
    stage = StageFolder(Path(config.output_dir) / "backbone", (run, backbone, prompt, config), inputs, run.overwrite)
    if stage.done:
        say(f"backbone: already done, in {stage.model}")
        return stage.model
    check(arguments, task)
    stage.claim()
    texts = tokenizer_texts(task, train, prompt)
    reranker = build_reranker(backbone, prompt, texts, config.seed, config.trust_remote_code)
    config.output_dir = str(stage.checkpoints)
    if dev is None:
        watch_nothing(task, config)
    trainer = PretrainingTrainer(
        model=reranker.backbone,
        args=config,
        train_dataset=prompt_dataset(task, train, reranker.processor),
        eval_dataset=None if dev is None else prompt_dataset(task, dev, reranker.processor),
        processing_class=padded(reranker.processor.tokenizer),
    )
    stage.train(trainer)
    stage.save(trainer, reranker.backbone, reranker.processor.tokenizer)
    stage.finish(parameters=reranker.num_parameters())
    return stage.model


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> Any:  # noqa: ARG001
    """Checks the settings, as `stages.train_reranker.check` does."""
    run, backbone, prompt, config = arguments
    run.splits(task)
    check_training(config, "loss")
    prompt.for_task(run.data)
    return check_language_model(backbone, config, config.trust_remote_code)
