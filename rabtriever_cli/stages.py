"""The stages of `modeling_rabtriever.stages`, by the name of their command."""

from typing import NamedTuple


class Stage(NamedTuple):
    """A stage's module, the extra with its dependencies, and what it does."""

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
}
