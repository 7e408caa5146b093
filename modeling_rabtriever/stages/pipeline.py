"""All stages in order: teacher, student, evaluation and cards. Skips finished stages and resumes interrupted ones.

Usage:
    python -m training.pipeline --config household --data path/to/household
    python -m training.pipeline --config my.yaml --data my/beir-folder --output_dir runs/mine --distill.max_steps 500

A flag applies to all stages, `--<stage>.<flag>` to one (pretrain, train_reranker, generate_queries, distill, evaluate).
pretrain and generate_queries run only if the recipe has a section for them. If --distill.teacher is the address of a
server, no teacher is trained, and evaluate asks that server too (--evaluate.candidates bounds the pairs).
`python -m training.<stage> --help` lists the flags of a stage. The settings of all stages are checked before the first
one runs.
"""

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..served.address import is_address
from ..tasks.named import load_task
from ..trainers.processes import say
from ..trainers.stage_folder import finished
from . import distill, evaluate, generate_queries, pretrain, program, train_reranker
from .recipe import OPTIONAL, STAGES, parse_stage, read_recipe, split_config
from .served import served_flags

_STAGES = {
    "pretrain": pretrain,
    "train_reranker": train_reranker,
    "generate_queries": generate_queries,
    "distill": distill,
    "evaluate": evaluate,
}


def main(argv: Sequence[str] | None = None, last: str = "evaluate") -> None:
    """Runs the stages up to `last` with the recipe and the overrides.

    Raises:
        ValueError: there is no recipe, or a flag or a key is unknown to its stage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or "-h" in arguments or "--help" in arguments:
        print((__doc__ or "").replace("python -m training.pipeline", program("pipeline")))
        return
    configs, flags = split_config(arguments)
    if not configs:
        raise ValueError("--config is missing; accepted: a recipe's name, such as household, or its file")
    sections = read_recipe(*configs)[1]
    stages = [stage for stage in STAGES if stage not in OPTIONAL or sections[stage]]
    recipes = [item for config in configs for item in ("--config", config)]
    commands = {stage: [*recipes, *own] for stage, own in by_stage(flags, stages).items()}
    stages = stages[: stages.index(last) + 1]
    if "distill" in stages:
        with _named("distill"):
            _, teacher, _, source, prompt, _ = parse_stage("distill", distill.ARGUMENTS, commands["distill"])
        if is_address(teacher.teacher):
            stages = [stage for stage in stages if stage not in ("pretrain", "train_reranker")]
            commands["evaluate"] = _with_teacher(commands["evaluate"], served_flags(teacher, source, prompt))
        if teacher.dry_run:
            stages = stages[: stages.index("distill") + 1]
    check({stage: commands[stage] for stage in stages})
    made: dict[str, Path] = {}
    for stage in stages:
        say(f"== {stage}")
        made[stage] = _STAGES[stage].main(commands[stage])
    say("\n".join(["== done", *(f"{stage}: {path}" for stage, path in made.items() if path.exists())]))


def _with_teacher(command: Sequence[str], teacher: Sequence[str]) -> list[str]:
    """The command line of the stage evaluate, with the teacher of the student unless it says what to evaluate."""
    with _named("evaluate"):
        _, chosen, server, *_ = parse_stage("evaluate", evaluate.ARGUMENTS, command)
    own = chosen.model is None and not chosen.run_files and server.teacher is None
    return [*teacher, *command] if own else list(command)


def check(commands: Mapping[str, Sequence[str]]) -> None:
    """Checks the command lines of all stages before the first one runs: a fault in the last one shows at once.

    Raises:
        ValueError: a flag, key, split, file, model or setting of a stage is unusable; the message names the stage.
    """
    arguments = {}
    for stage, command in commands.items():
        with _named(stage):
            arguments[stage] = parse_stage(stage, _STAGES[stage].ARGUMENTS, command)
    load = functools.cache(load_task)
    tasks = {run.data: load(run.data, run.skip_bad) for run, *_ in arguments.values()}
    earlier: dict[str, Any] = {}
    for stage, parsed in arguments.items():
        run, output = parsed[0], Path(next(part.output_dir for part in parsed if hasattr(part, "output_dir")))
        if finished(output / STAGES[stage]) and not run.overwrite:
            continue  # the stage will be skipped, so its model need not be on the Hub any more
        with _named(stage):
            earlier[stage] = _STAGES[stage].check(parsed, tasks[run.data], earlier)


@contextmanager
def _named(stage: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{stage}: {error}") from error


def by_stage(flags: Sequence[str], stages: Sequence[str] = tuple(STAGES)) -> dict[str, list[str]]:
    """The command line of each stage, from `--flag value` for all of them and `--<stage>.<flag> value` for one.

    Raises:
        ValueError: a flag names another stage.
    """
    chosen: dict[str, list[str]] = {stage: [] for stage in stages}
    targets: Sequence[str] = stages
    for item in flags:
        if item.startswith("--"):
            name, equals, value = item.removeprefix("--").partition("=")
            stage, dot, flag = name.partition(".")
            if dot and stage not in stages:
                raise ValueError(f"--{name} names no stage; accepted: --<stage>.<flag> with {', '.join(stages)}")
            targets, item = ([stage], f"--{flag}{equals}{value}") if dot else (stages, item)
        for target in targets:
            chosen[target].append(item)
    return chosen
