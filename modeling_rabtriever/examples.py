"""Small models that come with the package, so that a first query needs neither training nor a network."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "example_models"


def example(name: str, kind: str = "student") -> str:
    """The folder of a model that is installed with this package, for `from_pretrained`.

    `household` is the quickstart's task, with models of 0.6M parameters: requests such as "In the kitchen: I spilled my
    drink.", documents such as "bring the sponge to the kitchen". They know no other words.

    Args:
        name: `household`.
        kind: `student`, a `RabtrieverModel`, or `teacher`, a `GenerativeRerankerModel`.

    Raises:
        ValueError: there is no such model.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> model = RabtrieverModel.from_pretrained(example("household"))
        >>> documents = ["bring the lantern to the kitchen", "bring the sponge to the kitchen"]
        >>> model.rank("In the kitchen: I spilled my drink.", documents, top_k=1)[0]["text"]
        'bring the sponge to the kitchen'
    """
    found = sorted(path.relative_to(_FOLDER).as_posix() for path in _FOLDER.glob("*/*") if path.is_dir())
    if f"{name}/{kind}" not in found:
        raise ValueError(f"name is {name!r}, kind is {kind!r}; accepted: {', '.join(found)}")
    return str(_FOLDER / name / kind)
