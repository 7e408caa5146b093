"""All stages in order: teacher, student, evaluation and cards. What is done is skipped, what was interrupted resumes.

Usage:
    python -m training.pipeline --config training/recipes/household.yaml --data path/to/household
    python -m training.pipeline --config my.yaml --data my/beir-folder --output_dir runs/mine --distill.max_steps 500

A flag goes to all stages; `--<stage>.<flag>` goes to one (pretrain, train_reranker,
generate_queries, distill, evaluate). pretrain and generate_queries run only if the recipe has a section for them.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from training import distill, evaluate, generate_queries, pretrain, train_reranker
from training.processes import say
from training.recipe import OPTIONAL, STAGES, parse_stage, read_recipe, split_config
from training.tasks.named import load_task

_STAGES = {
    "pretrain": pretrain,
    "train_reranker": train_reranker,
    "generate_queries": generate_queries,
    "distill": distill,
    "evaluate": evaluate,
}


def main(argv: Sequence[str] | None = None, last: str = STAGES[-1]) -> None:
    """Runs the stages up to `last` with the recipe and the overrides.

    Raises:
        ValueError: there is no recipe, or a flag or a key is unknown to its stage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return
    configs, flags = split_config(arguments)
    if not configs:
        raise ValueError("--config is missing; accepted: a recipe such as training/recipes/household.yaml")
    sections = read_recipe(*configs)[1]
    stages = [stage for stage in STAGES if stage not in OPTIONAL or sections[stage]]
    recipes = [item for config in configs for item in ("--config", config)]
    commands = {stage: [*recipes, *own] for stage, own in by_stage(flags, stages).items()}
    # A broken recipe or a missing split fails before the first stage, not before the last.
    settings = {stage: parse_stage(stage, _STAGES[stage].ARGUMENTS, commands[stage]) for stage in stages}
    stages = stages[: stages.index(last) + 1]
    check_splits({stage: settings[stage] for stage in stages})
    for stage in stages:
        say(f"== {stage}")
        _STAGES[stage].main(commands[stage])


def check_splits(settings: Mapping[str, tuple[Any, ...]]) -> None:
    """Looks for every split the stages will ask for.

    Args:
        settings: stage -> what `parse_stage` returned for it.

    Raises:
        ValueError: a task cannot be read, or lacks one of them.
    """
    load = functools.cache(load_task)
    for stage, (run, arguments, *_) in settings.items():
        task = load(run.data, run.skip_bad)
        if stage == "evaluate":
            for name in arguments.splits:
                task.split(name)
        elif stage == "generate_queries":
            task.split(run.train_split)
        else:
            run.splits(task)


def by_stage(flags: Sequence[str], stages: Sequence[str] = STAGES) -> dict[str, list[str]]:
    """The command line of each stage.

    Args:
        flags: `--flag value` for all stages and `--<stage>.<flag> value` for one.
        stages: those that are run.

    Raises:
        ValueError: a flag names another stage.
    """
    chosen: dict[str, list[str]] = {stage: [] for stage in stages}
    targets: Sequence[str] = stages
    for item in flags:
        if item.startswith("--"):
            stage, dot, flag = item.removeprefix("--").partition(".")
            if dot and stage not in stages:
                raise ValueError(f"{item} names no stage; accepted: --<stage>.<flag> with {', '.join(stages)}")
            targets, item = ([stage], f"--{flag}") if dot else (stages, item)
        for target in targets:
            chosen[target].append(item)
    return chosen


if __name__ == "__main__":
    main()
