"""The tasks of a model benchmark: recipes, and data and backbones from the command line."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.report import Report
from modeling_rabtriever.files import write_folder
from modeling_rabtriever.reranking import (
    BackboneArguments,
    LoraArguments,
    NegativeArguments,
    PromptArguments,
    RerankerTrainingConfig,
    train_reranker,
)
from modeling_rabtriever.stages.recipe import read_recipe
from modeling_rabtriever.tasks.beir import RetrievalTask

SPLITS = ("dev", "test")
SYSTEM = "system"  # the system that a row compares with the teacher: a student, MaxSim, BM25
PAIR = (TEACHER, SYSTEM)
TITLES = {
    "household": "household",
    "household-large": "household, 5,600 documents",
    "esconv": "ESConv",
    "saycan": "SayCan",
    "arc_challenge": "ARC-Challenge",
    "virtualhome": "VirtualHome",
    "metatool": "MetaTool",
    "cose": "CoS-E",
    "ecare": "e-CARE",
    "strategyqa": "StrategyQA",
    "theoremqa": "TheoremQA",
    "scifact": "SciFact",
    "clinical_trial": "Clinical-Trial",
    "limit_small": "LIMIT-small",
}
STARTS = {"minilm": "all-MiniLM-L6-v2", "mpnet": "all-mpnet-base-v2"}  # folders of benchmarks.pretrained
# Shares of the teacher's R@1 that our best student should keep.
RETENTION = {"household": 0.98, "esconv": 0.97, "saycan": 0.95}
SEEDS = 3  # results with fewer go into the log, not into tables of means over seeds
FROM_SCRATCH = dict.fromkeys(("arc_challenge", "cose", "strategyqa", "theoremqa", "scifact"), "from-scratch")
RECIPES = FROM_SCRATCH | {
    name: name
    for name in ("household", "esconv", "saycan", "virtualhome", "metatool", "cose", "ecare", "strategyqa", "scifact")
}
RECIPES["household-large"] = RECIPES["household"]


@dataclasses.dataclass(frozen=True)
class TaskRun:
    """One task at one seed.

    Args:
        task: its name.
        seed: of all training.
        data: folder of the task.
        teacher: settings of the teacher's training that override the recipe.
        config: a recipe instead of the task's own.
    """

    task: str
    seed: int
    data: str
    teacher: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: str | None = None

    def recipe(self, stage: str, *more: str) -> dict[str, Any]:
        """The settings of a stage in the recipe, overridden by further recipes."""
        return read_recipe(self.config or RECIPES[self.task], *more)[1][stage]


def filled(kinds: Sequence[type], settings: Mapping[str, Any]) -> list[Any]:
    """One instance of each dataclass, with the settings that are fields of it.

    Raises:
        ValueError: a setting is a field of none of them.
    """
    fields = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]
    if unknown := settings.keys() - set().union(*fields):
        raise ValueError(f"settings hold {', '.join(sorted(unknown))}; accepted: fields of {kinds}")
    own = [{name: value for name, value in settings.items() if name in names} for names in fields]
    return [kind(**given) for kind, given in zip(kinds, own, strict=True)]


def trained_teacher(run: TaskRun, task: RetrievalTask, folder: Path, **changes: Any) -> Path:
    """Folder of a teacher trained with the task's recipe; a finished one is reused.

    Args:
        run: its settings override the recipe.
        task: of the run, loaded.
        folder: of the run.
        changes: settings that override both.
    """
    model = folder / "teacher" / "model"
    if not model.exists():
        places = {"output_dir": str(folder / "teacher" / "checkpoints"), "seed": run.seed}
        kinds = (RerankerTrainingConfig, BackboneArguments, PromptArguments, NegativeArguments, LoraArguments)
        settings = run.recipe("train_reranker") | run.teacher | changes | places
        teacher = train_reranker(task, *filled(kinds, settings))
        write_folder(model, teacher.save_pretrained)
    return model


def task_parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """A command line that names tasks, seeds and folders.

    Args:
        description: the script's docstring.
        runs: default folder of the runs.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help=f"name=folder in BEIR layout; names: {', '.join(RECIPES)}")
    parser.add_argument("--backbone", nargs="+", default=[], help="name=folder: backbone of the task's teachers")
    parser.add_argument("--steps", nargs="+", default=[], help="name=steps of the teacher, instead of the recipe's")
    add_settings(parser, "settings of the teachers' training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path(runs), help="folder of the runs; finished ones are reused")
    return parser


def add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--settings name=value ...` to a command line, with values as in a recipe."""
    parser.add_argument("--settings", nargs="+", default=[], help=f"name=value ...: {what}, for all tasks")


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings from `--settings`."""
    return {name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in arguments.settings)}


def task_runs(arguments: argparse.Namespace) -> Iterator[TaskRun]:
    """Every task at every seed.

    Raises:
        ValueError: a task is unknown, or an argument is not `name=value`.
    """
    tasks, backbones = name_values(arguments.tasks), name_values(arguments.backbone)
    steps = name_values(arguments.steps)
    for task, data in tasks.items():
        teacher: dict[str, Any] = {"model_name_or_path": backbones[task]} if task in backbones else {}
        teacher |= {"max_steps": int(steps[task])} if task in steps else {}
        for seed in arguments.seeds:
            yield TaskRun(task, seed, data, teacher | settings_of(arguments))


def figures(report: Report, system: str) -> dict[str, Any]:
    """The figures of a report for a row: `n`, R@1 of the teacher and of a system, and their MRR@10 under `mrr@10`."""
    pair = {TEACHER: report.systems[TEACHER].metrics, SYSTEM: report.systems[system].metrics}
    first = {who: metrics["success@1"].to_json() for who, metrics in pair.items()}
    return {"n": report.n, **first, "mrr@10": {who: metrics["mrr@10"].to_json() for who, metrics in pair.items()}}


def name_values(items: list[str]) -> dict[str, str]:
    """`name=value` arguments by the name of a task.

    Raises:
        ValueError: a task is unknown, or an argument is not `name=value`.
    """
    for item in items:
        if item.partition("=")[0] not in RECIPES or "=" not in item:
            raise ValueError(f"{item}; accepted: name=value with a name of {', '.join(RECIPES)}")
    return dict(item.split("=", 1) for item in items)
