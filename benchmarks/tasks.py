"""The tasks a benchmark of teachers runs on: recipes, and where data and backbones are, as the command line says."""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_rabtriever.evaluation.labels import STUDENT, TEACHER
from modeling_rabtriever.evaluation.report import Report
from modeling_rabtriever.stages import distill
from modeling_rabtriever.stages import evaluate as evaluate_stage
from modeling_rabtriever.stages.recipe import parse_stage

SPLITS = ("dev", "test")
SYSTEM = "system"  # what a row holds against the teacher: a student, MaxSim, BM25
PAIR = (TEACHER, SYSTEM)
TITLES = {
    "household": "household",
    "household-large": "household, 5,600 documents",
    "esconv": "ESConv",
    "saycan": "SayCan",
    "arc_challenge": "ARC-Challenge",
    "cose": "CoS-E",
    "strategyqa": "StrategyQA",
    "theoremqa": "TheoremQA",
    "scifact": "SciFact",
    "clinical_trial": "Clinical-Trial",
    "limit_small": "LIMIT-small",
}
# Shares of the teacher's R@1 our best student is to keep.
RETENTION = {"household": 0.98, "esconv": 0.97, "saycan": 0.95}
SEEDS = 3  # of fewer it is a first look: in the log, not beside means over seeds
FROM_SCRATCH = dict.fromkeys(("arc_challenge", "cose", "strategyqa", "theoremqa", "scifact"), "from-scratch")
RECIPES = FROM_SCRATCH | {name: name for name in ("household", "esconv", "saycan", "cose")}
RECIPES["household-large"] = RECIPES["household"]


@dataclass(frozen=True)
class TaskRun:
    """One task at one seed: `shared` are the flags of every stage, `teacher` those given on the command line beside."""

    task: str
    seed: int
    data: str
    shared: list[str]
    teacher: list[str]
    steps: int | None


def as_flags(settings: Mapping[str, str | list[str]]) -> list[str]:
    """Settings as a command line; a list is several values of one flag."""
    values = {name: [value] if isinstance(value, str) else value for name, value in settings.items()}
    return [item for name, given in values.items() for item in (f"--{name}", *given)]


def task_parser(
    description: str | None, runs: str, stage: str = "training.train_reranker", prefix: str = "--"
) -> argparse.ArgumentParser:
    """A command line that names tasks, seeds and folders.

    Args:
        description: the script's docstring.
        runs: default folder of the runs.
        stage: the module that reads `--flags`.
        prefix: of the flags of the teacher's training there.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help=f"name=folder in BEIR layout; names: {', '.join(RECIPES)}")
    parser.add_argument("--backbone", nargs="+", default=[], help="name=folder: what a task's teachers start from")
    parser.add_argument("--steps", nargs="+", default=[], help="name=steps of the teacher, where not the recipe's")
    parser.add_argument("--flags", default="", help=f"further flags of {stage}, for all tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path(runs), help="where the runs go; finished ones are read")
    parser.set_defaults(prefix=prefix)
    return parser


def task_runs(arguments: argparse.Namespace) -> Iterator[TaskRun]:
    """Every task at every seed.

    Raises:
        ValueError: a task is unknown, or an argument is not `name=value`.
    """
    tasks, backbones = name_values(arguments.tasks), name_values(arguments.backbone)
    steps = name_values(arguments.steps)
    for task, data in tasks.items():
        teacher = [f"{arguments.prefix}model_name_or_path", backbones[task]] if task in backbones else []
        teacher += [f"{arguments.prefix}max_steps", steps[task]] if task in steps else []
        teacher += arguments.flags.split()
        for seed in arguments.seeds:
            shared = ["--config", RECIPES[task], "--data", data, "--seed", str(seed)]
            yield TaskRun(task, seed, data, shared, teacher, int(steps[task]) if task in steps else None)


def distil_and_evaluate(shared: list[str], folder: Path, teacher: Path, flags: list[str]) -> dict[str, Any]:
    """Distils one teacher and evaluates both: split -> `figures`."""
    place = ["--output_dir", str(folder)]
    trained = distill.main([*shared, *place, "--teacher", str(teacher), *flags])
    evaluate_stage.main([*shared, *place, "--model", str(teacher), str(trained), "--splits", *SPLITS])
    files = {split: folder / "evaluation" / f"{split}.json" for split in SPLITS}
    reports = {split: Report.from_json(json.loads(file.read_text())) for split, file in files.items()}
    return {split: figures(report, STUDENT) for split, report in reports.items()}


def evaluation_dtype(shared: list[str]) -> str:
    """The type a recipe evaluates models in; `shared` are the flags of every stage."""
    *_, arguments = parse_stage("evaluate", evaluate_stage.ARGUMENTS, shared)
    return str(arguments.dtype)


def figures(report: Report, system: str) -> dict[str, Any]:
    """What a row keeps of a report: `n`, R@1 of the teacher and of a system, and their MRR@10 under `mrr@10`."""
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
