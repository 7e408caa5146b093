"""Recipes: one YAML file for all stages of a run.

    data: path/to/beir-folder        # keys at the top are shared by all stages
    output_dir: runs/mine
    pretrain: {max_steps: 1000}      # optional: the stage runs only if the recipe has its section
    train_reranker: {max_steps: 600} # a section holds the settings of one stage
    generate_queries: {count: 1000}  # optional too
    distill: {max_steps: 1500}
    evaluate: {splits: [test]}

`base: household` at the top takes the settings of another recipe; the keys of this one win.

Each stage reads the shared keys, then its own section, then command-line overrides: `--max_steps 10`. Several recipes
can be combined, `--config household --config students/paper`: for each key, the last recipe that has it wins.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..recipes import recipe_path
from ..yaml_mapping import read_mapping
from .command import StageParser, parse_or_help

# The stages of the pipeline, in order -> folder in that of the run.
STAGES = {
    "pretrain": "backbone",
    "train_reranker": "teacher",
    "generate_queries": "queries",
    "distill": "student",
    "evaluate": "evaluation",
}
OPTIONAL = ("pretrain", "generate_queries")  # run only if the recipe has their section


def read_recipe(*names_or_paths: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Shared keys and sections of recipes, by name or file; if two recipes have a key, the later value counts.

    Raises:
        ValueError: a recipe is unknown, cannot be read or is not a YAML mapping, a section is not a mapping, or a base
            has a base itself.
    """
    shared: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    for path in names_or_paths:
        recipe = _mapping(path)
        base = recipe.pop("base", None)
        for part in (recipe,) if base is None else (_mapping(str(base)), recipe):
            if "base" in part:
                raise ValueError(f"{path}: base {base} has a base too; accepted: a recipe without one")
            for stage in STAGES:
                section = part.pop(stage, None) or {}
                if not isinstance(section, dict):
                    raise ValueError(f"{path}: {stage} is {section!r}; accepted: a mapping of settings")
                sections[stage] |= section
            shared |= part
    return shared, sections


def _mapping(path: str | Path) -> dict[str, Any]:
    recipe = read_mapping(recipe_path(path), "a YAML mapping of settings")
    if not all(isinstance(key, str) for key in recipe):
        raise ValueError(f"{path} has keys that are not texts; accepted: a YAML mapping of settings")
    return recipe


def parse_stage(stage: str, argument_types: tuple[type, ...], argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The settings of a stage: defaults, overridden by the recipe's shared keys, its section, and the command line.

    Returns:
        One instance of each of the dataclasses `argument_types`.

    Raises:
        ValueError: a flag or a key is unknown, or a value is not accepted.
        SystemExit: the command line has a help flag; help was printed.
    """
    configs, flags = split_config(argv)
    parser = StageParser(stage, argument_types)
    if configs:
        shared, sections = read_recipe(*configs)
        parser.set_recipe(" + ".join(configs), {**shared, **sections[stage]})
    return parse_or_help(parser, flags)


def split_config(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Takes every `--config FILE` out of a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    return known.config, rest
