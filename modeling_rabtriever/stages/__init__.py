"""The stages of a run, as programs: they read options and recipes and write the folder of the run.

The command `rabtriever` and the scripts in `training/` of a clone call them. Importing this package imports no stage.
"""

import sys
from pathlib import Path
from typing import NamedTuple


class Stage(NamedTuple):
    """A stage's module in this package, the extra with its dependencies, and what it does."""

    module: str
    extra: str
    about: str


STAGES = {
    "pretrain": Stage("pretrain", "train", "Pretrains a backbone from scratch on a task's texts."),
    "train": Stage("train_reranker", "train", "Trains the teacher, a generative reranker."),
    "generate_queries": Stage("generate_queries", "train", "Generates queries without labels for the student."),
    "distill": Stage("distill", "train", "Distils the teacher into a student."),
    "evaluate": Stage("evaluate", "train", "Evaluates models next to trivial baselines."),
    "pipeline": Stage("pipeline", "train", "Runs the stages of a recipe in order."),
    "quickstart": Stage("quickstart", "train", "Runs every stage on the built-in household task, in minutes on a CPU."),
    "card": Stage("card", "evaluation", "Writes the model cards of a run."),
    "release": Stage("release", "evaluation", "Checks a model folder and publishes it on the Hub."),
}  # command of `rabtriever` -> stage


def program(stage: str) -> str:
    """The command line of a stage: of the command `rabtriever`, or of a script in a clone."""
    command = next((name for name, found in STAGES.items() if found.module == stage), stage)
    by_command = Path(sys.argv[0]).stem in ("rabtriever", "cli")
    return f"rabtriever {command}" if by_command else f"python -m training.{stage}"
