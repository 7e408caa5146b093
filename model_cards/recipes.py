"""Writes the cards of the models that the recipes train, one file per recipe, from recipe, origins and result files.

Usage:
    python -m model_cards.recipes           # writes model_cards/<recipe>.md

A run's own cards, with everything that was measured on it, are those of `rabtriever card RUN`.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.front_table import SOURCES, front_page
from benchmarks.results import FOLDER as RESULTS
from benchmarks.tasks import TITLES
from modeling_rabtriever.cards.licenses import FROM_SCRATCH
from modeling_rabtriever.files import write_text
from modeling_rabtriever.recipes import recipe_names, recipe_path
from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.recipe import read_recipe
from modeling_rabtriever.yaml_mapping import read_mapping

FOLDER = Path(__file__).parent
ORIGINS = read_mapping(FOLDER / "origins.yaml", "a mapping of data and models")


def recipes() -> list[str]:
    """Recipes that train a teacher and a student; those in a folder only change a student."""
    return [name for name in recipe_names() if "/" not in name]


def card(recipe: str) -> str:
    """The card of a recipe's two models.

    Raises:
        ValueError: `origins.yaml` does not say the licence of a backbone or an encoder.
    """
    _, sections = read_recipe(recipe)
    teacher, student = sections["train_reranker"], sections["distill"]
    backbone = teacher.get("model_name_or_path") or sections["pretrain"]["model_name_or_path"]
    encoder = student.get("encoder", backbone)
    data = ORIGINS["data"].get(recipe)
    bases = sorted({name for name in (backbone, encoder) if not name.endswith(".json")})
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("recipe.md.jinja").render(
        recipe=recipe,
        title=TITLES.get(recipe, recipe),
        about=_about(recipe),
        instruction=teacher.get("instruction"),
        lora=teacher.get("use_peft", False),
        teacher={
            "start": _start(backbone),
            "license": _license(backbone),
            "objective": teacher.get("objective", "sft"),
            "steps": _length(teacher),
        },
        student={
            "start": "the teacher's backbone" if encoder == backbone else _start(encoder),
            "license": _license(encoder),
            "trains": "the predictor; the encoder is frozen"
            if student.get("train_encoder") == "none"
            else "all weights",
            "objective": _losses(student),
            "steps": _length(student),
        },
        figures=_figures(recipe),
        data=data,
        model_license=data["license"] if data and "-nc-" in data["license"] else "apache-2.0",
        base_flag=f" base_model={ORIGINS['models'][bases[0]]}" if bases else f" base_model={FROM_SCRATCH}",
    )


def _about(recipe: str) -> str:
    """The comment at the head of a recipe, up to its command."""
    lines = []
    for line in recipe_path(recipe).read_text().splitlines():
        if not line.startswith("# ") or line.startswith(("# python", "# torchrun")):
            break
        lines.append(line.removeprefix("# "))
    return "\n".join(lines)


def _start(name: str) -> str:
    return f"`{name}`, from scratch" if name.endswith(".json") else f"[`{name}`](https://huggingface.co/{name})"


def _license(name: str) -> str:
    if name.endswith(".json"):
        return "no other weights"
    if name not in ORIGINS["models"]:
        raise ValueError(f"the licence of {name} is not known; accepted: one that model_cards/origins.yaml has")
    return f"weights under `{ORIGINS['models'][name]}`"


def _length(section: dict[str, Any]) -> str:
    rows = section["per_device_train_batch_size"] * section.get("gradient_accumulation_steps", 1)
    if "max_steps" in section:
        return f"{section['max_steps']:,} of {rows} rows"
    epochs = section.get("num_train_epochs", 3)
    return f"{epochs} epoch{'' if epochs == 1 else 's'}, {rows} rows a step"


def _losses(student: dict[str, Any]) -> str:
    defaults = {"listwise_weight": 1.0, "mse_weight": 0.0, "kl_weight": 0.0, "label_share": 0.0}
    weights = {name: student.get(name, default) for name, default in defaults.items()}
    parts = [f"{name.removesuffix('_weight')} {value}" for name, value in weights.items() if value]
    return ", ".join(parts).replace("label_share", "share of the labels")


def _figures(recipe: str) -> str:
    """The rows of the README's table on this recipe's task, or nothing."""
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in SOURCES]
    head, rule, *rows = front_page(*results).splitlines()
    title = TITLES.get(recipe, recipe)
    own = [row for row in rows if row.startswith((f"| {title} (", f"| {title},"))]
    return "\n".join([head, rule, *own]) if own else ""


def main() -> None:
    """Writes every card."""
    for recipe in recipes():
        write_text(FOLDER / f"{recipe}.md", card(recipe))


if __name__ == "__main__":
    run_command(main)
