"""The installed library is whole: every room with its data in the wheel, each imported alone, the Hub files first."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import modeling_rabtriever
from modeling_rabtriever.cards.layout import CARDS
from modeling_rabtriever.recipes import BACKBONES, recipe_names, recipe_path

ROOT = Path(__file__).parents[1]
PACKAGE = Path(modeling_rabtriever.__file__).parent
ROOMS = ["cards", "distillation", "evaluation", "reranking", "tasks"]
DATA = [
    "py.typed",
    "tasks/named.yaml",
    "tasks/household.yaml",
    *(f"cards/templates/{template}" for template, *_ in CARDS.values()),
    *(f"cards/templates/parts/{name}.md" for name in ("citation", "licences", "prompt", "results", "trust")),
    *(recipe_path(name).relative_to(PACKAGE).as_posix() for name in recipe_names()),
    *(path.relative_to(PACKAGE).as_posix() for path in BACKBONES.glob("*.json")),
    *(
        f"example_models/household/{kind}/{name}"
        for kind in ("student", "teacher")
        for name in ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json")
    ),
]
OTHER_ROOMS = """
import sys
import modeling_rabtriever.{room}
print(*sorted(name for name in sys.modules if name.startswith("modeling_rabtriever.") or "." not in name))
"""


def test_data_files_lie_in_the_package() -> None:
    assert len(recipe_names()) > 10 and {"household", "students/paper"} <= set(recipe_names())
    assert [name for name in DATA if not (PACKAGE / name).is_file()] == []


def test_the_wheel_holds_every_room_and_its_data() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="builds the wheel")
    included = {file.distribution_path for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    code = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert code | {f"modeling_rabtriever/{name}" for name in DATA} <= included
    assert {name.partition("/")[0] for name in included} == {"modeling_rabtriever", "rabtriever_cli"}


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_imports_no_other(room: str) -> None:
    code = OTHER_ROOMS.format(room=room)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = set(done.stdout.split())
    assert not {"trl", "datasets", "peft", "bm25s", "matplotlib", "sentence_transformers"} & names
    assert {name.split(".")[1] for name in names if "." in name} & {*ROOMS, "trainers", "retrieval", "stages"} == {room}


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_there(room: str) -> None:
    module = import_module(f"modeling_rabtriever.{room}")
    assert all(getattr(module, name).__doc__ for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_changelog_and_citation_name_this_version() -> None:
    changelog, citation = (ROOT / "CHANGELOG.md").read_text(), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version, date = re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", changelog, re.MULTILINE)[0]
    assert version == citation["version"] == modeling_rabtriever.__version__
    assert date == str(citation["date-released"])
    assert "## [Unreleased]\n" in changelog
