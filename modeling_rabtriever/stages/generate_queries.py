"""Optional, before the student: queries without labels, in the training queries' manner.

Usage:
    python -m training.generate_queries --config saycan --data path/to/saycan

The student learns from the teacher's scores, so it can learn from queries that have no labels. Where training queries
are few it needs them. Two kinds: a language model is fitted to the training queries for a few epochs,
then goes on from the first words of one of them (--count; it should know the language: a pretrained model, not one from
scratch); and training queries with names exchanged, where documents show which names (--swapped, see
`distillation.swaps`).

Writes <output_dir>/queries/queries.jsonl, lines {"_id": ..., "text": ...}, for the stage distill --unlabelled_queries.
A text that any split of the task has is left out. Interrupted, it goes on after the last whole batch.
"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..distillation.generated_queries import GenerationArguments, batches_file, written
from ..distillation.swaps import swapped
from ..files import write_text
from ..reranking.backbone import BackboneArguments
from ..reranking.reranker_trainer import LanguageModelTrainingConfig
from ..tasks.beir import RetrievalTask
from ..tasks.named import load_task
from ..trainers.processes import on_main, say
from ..trainers.stage_folder import StageFolder, model_digest
from .checks import NOTHING, Earlier, check_language_model, check_splits, check_training
from .recipe import parse_stage
from .run import RunArguments

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
        say(f"queries: done before, in {path}")
        return path
    check(arguments, task)
    queries = task.split(run.train_split).queries
    known = {query for split in task.splits.values() for query in split.queries}
    if settings.swapped and settings.count:  # too few names are found out before a language model has written for hours
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
    """As `stages.train_reranker.check`; also refuses a model that starts from scratch."""
    run, backbone, settings, config = arguments
    if settings.count and (backbone.model_name_or_path is None or backbone.model_name_or_path.endswith(".json")):
        raise ValueError(
            f"model_name_or_path is {backbone.model_name_or_path}; accepted: Hub id or folder of a pretrained model, "
            "or count 0"
        )
    check_splits(task, train_split=run.train_split)
    check_training(config)
    if settings.count:
        room = getattr(
            check_language_model(backbone, config, config.trust_remote_code), "max_position_embeddings", math.inf
        )
        if settings.max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens is {settings.max_new_tokens}; accepted: less than the model's context, {room}"
            )
