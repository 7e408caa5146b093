"""The stages of a run, as programs: options and recipes in, a folder of the run out. They call the other rooms.

Called by `rabtriever`, and by the scripts in `training/` of a clone. Importing this package imports no stage.
"""

import sys
from pathlib import Path
from typing import NamedTuple


class Stage(NamedTuple):
    """A stage's module in this package, the extra that brings what it needs, and what it does."""

    module: str
    extra: str
    about: str


STAGES = {
    "pretrain": Stage("pretrain", "train", "Pretrains a backbone from scratch on a task's texts."),
    "train": Stage("train_reranker", "train", "Trains the teacher, a generative reranker."),
    "generate_queries": Stage("generate_queries", "train", "Writes queries without labels for the student."),
    "distill": Stage("distill", "train", "Distils the teacher into a student."),
    "evaluate": Stage("evaluate", "train", "Evaluates models beside trivial baselines."),
    "pipeline": Stage("pipeline", "train", "Runs the stages of a recipe in order."),
    "quickstart": Stage("quickstart", "train", "Runs all of it on the embedded household task, in minutes on a CPU."),
    "card": Stage("card", "evaluation", "Writes the model cards of a run."),
    "release": Stage("release", "evaluation", "Checks a model folder and publishes it on the Hub."),
}  # command of `rabtriever` -> stage


def program(stage: str) -> str:
    """How this process calls a stage: by the command `rabtriever`, or as a script of a clone."""
    command = next((name for name, found in STAGES.items() if found.module == stage), stage)
    by_command = Path(sys.argv[0]).stem in ("rabtriever", "cli")
    return f"rabtriever {command}" if by_command else f"python -m training.{stage}"
