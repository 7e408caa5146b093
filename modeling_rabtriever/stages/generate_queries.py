"""Optional, before the student: generates queries without labels that resemble the training queries.

Usage:
    python -m training.generate_queries --config saycan --data path/to/saycan

The student learns from the teacher's scores, so it can learn from queries without labels, and needs them if training
queries are few. There are two kinds. For --count, a language model is fine-tuned on the training queries for a few
epochs and then continues the first words of one of them (it should know the language: a pretrained model, not one from
scratch). For --swapped, names in training queries are exchanged, if documents show which names are interchangeable (see
`distillation.swaps`).

Writes <output_dir>/queries/queries.jsonl, lines {"_id": ..., "text": ...}, for the stage distill --unlabelled_queries,
without texts that are in a split of the task. If interrupted, it resumes after the last complete batch.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..distillation.generated_queries import GenerationArguments, batches_file, context_window, written
from ..distillation.swaps import swapped
from ..files import write_text
from ..reranking.backbone import BackboneArguments
from ..reranking.reranker_trainer import LanguageModelTrainingConfig
from ..tasks.beir import RetrievalTask
from ..tasks.named import load_task
from ..trainers.processes import on_main, say
from ..trainers.stage_folder import StageFolder, model_digest
from .checks import NOTHING, Earlier, check_splits
from .recipe import parse_stage
from .run import RunArguments
from .training_checks import check_language_model, check_training

ARGUMENTS = (RunArguments, BackboneArguments, GenerationArguments, LanguageModelTrainingConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the file of queries."""
    arguments = parse_stage("generate_queries", ARGUMENTS, argv)
    run, backbone, settings, config = arguments
    task = load_task(run.data, run.skip_bad)
    inputs = {"task": task.fingerprint()}
    if settings.count:
        inputs["model"] = model_digest(str(backbone.model_name_or_path))
    stage = StageFolder(Path(config.output_dir) / "queries", (run, backbone, settings, config), inputs, run.overwrite)
    path = stage.folder / "queries.jsonl"
    if stage.done:
        say(f"queries: already done, in {path}")
        return path
    check(arguments, task)
    queries = task.split(run.train_split).queries
    known = {query for split in task.splits.values() for query in split.queries}
    if settings.swapped and settings.count:  # fails on too few names before a language model generates for hours
        swapped(queries, task.corpus, settings.swapped, known, config.seed)
    stage.start()
    texts = written(backbone, config, queries, settings, known, stage) if settings.count else []
    if settings.swapped:
        texts += swapped(queries, task.corpus, settings.swapped, known | set(texts), config.seed)
    lines = (json.dumps({"_id": f"generated-{row:06d}", "text": text}) for row, text in enumerate(texts))
    on_main(lambda: write_text(path, "".join(f"{line}\n" for line in lines)))
    stage.finish(queries=len(texts), swapped=settings.swapped)

    def clear() -> None:
        batches_file(stage).unlink(missing_ok=True)
        shutil.rmtree(stage.model, ignore_errors=True)

    on_main(clear)
    say(f"{len(texts)} queries in {path}")
    return path


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> None:  # noqa: ARG001
    """Checks the settings, as `stages.train_reranker.check` does; also refuses a model from scratch."""
    run, backbone, settings, config = arguments
    if settings.count and (backbone.model_name_or_path is None or backbone.model_name_or_path.endswith(".json")):
        raise ValueError(
            f"model_name_or_path is {backbone.model_name_or_path}; accepted: Hub id or folder of a pretrained model, "
            "or count 0"
        )
    check_splits(task, train_split=run.train_split)
    check_training(config)
    if settings.count:
        found = check_language_model(backbone, config, config.trust_remote_code)
        room = context_window(found)
        if settings.max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens is {settings.max_new_tokens}; accepted: less than the model's context, {room}"
            )
