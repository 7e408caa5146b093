"""The recipes of this package, found by name from anywhere: `household`, `students/paper`.

Also the configurations of language models that recipes start from: `backbones/qwen2-1m.json`.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
BACKBONES = FOLDER / "backbones"


def recipe_names(folder: str = "") -> list[str]:
    """Names of all recipes, sorted: a file of this folder without its ending, such as `students/paper`.

    Args:
        folder: only those in this folder, such as `students`.
    """
    paths = [path.relative_to(FOLDER) for path in (FOLDER / folder).rglob("*.yaml")]
    return sorted(path.with_suffix("").as_posix() for path in paths)


def recipe_path(name_or_path: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: a name of `recipe_names`, or the path of a YAML file.

    Raises:
        ValueError: it is neither.

    Examples:
        >>> from modeling_rabtriever.recipes import recipe_path
        >>> recipe_path("students/paper").name
        'paper.yaml'
    """
    names = recipe_names()
    if str(name_or_path) in names:
        return FOLDER / f"{name_or_path}.yaml"
    if not Path(name_or_path).is_file():
        raise ValueError(
            f"recipe {name_or_path} is not a file or a known name; accepted: a YAML file, or one of {', '.join(names)}"
        )
    return Path(name_or_path)


def backbone_path(name_or_path: str | Path) -> Path:
    """The file of a language model's configuration: one of `backbones/` by its name, or any other by its path.

    Args:
        name_or_path: such as `backbones/qwen2-1m.json`, or the path of a JSON file.

    Raises:
        ValueError: there is no such file.

    Examples:
        >>> from modeling_rabtriever.recipes import backbone_path
        >>> backbone_path("backbones/qwen2-1m.json").stem
        'qwen2-1m'
    """
    names = sorted(path.relative_to(FOLDER).as_posix() for path in BACKBONES.glob("*.json"))
    path = FOLDER / name_or_path if str(name_or_path) in names else Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"model_name_or_path {name_or_path} is not a file; accepted: a .json model configuration that exists, or "
            f"one of {', '.join(names)}"
        )
    return path
