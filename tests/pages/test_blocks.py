"""Every code block of README, site and docstrings runs as printed, or says that it does not and is checked."""

import doctest
import os
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path

import pytest
from sybil.document import PythonDocStringDocument
from sybil.parsers.rest import DocTestParser

from tests.pages.blocks import PAGES, ROOT, blocks, check, commands, small

FAST = ["docs/quickstart.md", "docs/search.md", "docs/from-other-libraries.md"]
SLOW = ["README.md", "docs/evaluate.md", "docs/serve.md", "docs/train.md", "docs/demo.md"]
ELSEWHERE = ["docs/stores.md"]  # tests/test_stores_page.py asks its stores for what they found
MODULES = [path for path in sorted((ROOT / "modeling_rabtriever").rglob("*.py")) if "    >>> " in path.read_text()]
TRAINING = ("reranking/training.py", "distillation/training.py")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [*FAST, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)])
@pytest.mark.filterwarnings("default")  # of the libraries that the pages use
def test_a_page_runs_as_printed(place: Path, page: str) -> None:
    found = blocks(ROOT / page)
    assert found
    for block in found:
        block.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_is_one_that_exists(page: Path) -> None:
    for block in blocks(page):
        if block.region.lexemes["arguments"] == "bash":
            for command in commands(str(block.parsed)):
                check(*command)


def test_every_page_with_blocks_is_run_or_says_why_not() -> None:
    """A block outside the lists above has nothing of ours to run: it installs, starts a server, or needs a clone."""
    for page in PAGES:
        if _name(page) not in (*FAST, *SLOW, *ELSEWHERE):
            for block in blocks(page):
                text = str(block.parsed)
                assert block.region.lexemes["arguments"] in ("bash", "yaml"), (_name(page), text)
                assert text.startswith("# not run in the tests: ") or "rabtriever" not in _programs(text), text


def _programs(block: str) -> list[str]:
    return [command[0] for command in commands(block)]


def test_the_readmes_first_block_answers_offline(tmp_path: Path) -> None:
    code = next(str(block.parsed) for block in blocks(ROOT / "README.md") if "import" in str(block.parsed))
    lines = _run(code, tmp_path, PYTHONPATH=str(ROOT))
    assert lines[0].endswith("bring the sponge to the kitchen")
    assert "bring the sponge to the kitchen" in lines[3].partition("}")[0]


def test_saved_models_need_no_package_of_ours(place: Path) -> None:
    """The quickstart's Python blocks, in a process that cannot import this package."""
    code = "\n".join(
        str(block.parsed)
        for block in blocks(ROOT / "docs/quickstart.md")
        if block.region.lexemes["arguments"] == "python"
    )
    lines = _run("import sys\nsys.modules['modeling_rabtriever'] = None\n" + code, place, HF_HOME=str(place))
    assert lines[0].endswith("bring the sponge to the kitchen")
    assert lines[5].startswith("tensor([[")


def _run(code: str, folder: Path, **variables: str) -> list[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


MODULE_MARKS = [
    pytest.param(path, id=_name(path), marks=[pytest.mark.slow] if path.as_posix().endswith(TRAINING) else [])
    for path in MODULES
]


@pytest.mark.parametrize("module", MODULE_MARKS)
def test_the_examples_of_docstrings(place: Path, module: Path) -> None:
    document = PythonDocStringDocument.parse(str(module), DocTestParser())
    document.pop_evaluator(document.import_document)  # an example says what it imports
    found = list(document.examples())
    assert found
    for block in found:
        if block.parsed.want or doctest.SKIP in block.parsed.options:
            block.evaluate()
        else:  # a trainer prints what no example shows
            exec(small(block.parsed.source), block.namespace)


# Data and settings, whose fields are the documentation, and what stands in the example of the function that takes it.
WITHOUT_EXAMPLE = {
    "tasks": {"Split", "load_hub"},  # reads the Hub
    "reranking": {"BackboneArguments", "LoraArguments", "NegativeArguments", "PromptArguments"}
    | {"RerankerTrainer", "RerankerTrainingConfig"},
    "served": set(),
    "distillation": {"RabtrieverDistillationConfig", "RabtrieverDistillationTrainer", "TeacherScores", "TeacherStates"},
    "evaluation": {"Interval", "SystemReport"},
    "retrieval": {"Deleted", "Document", "Hit", "Shard", "Tuning", "Unfinished", "UnfinishedStoreWarning"},
    "export": {"cross_encoder_engines", "engines_text", "graph_engines", "pair_limits"},
    "cards": {"CardArguments", "Release", "write_cards"},  # of a finished run: tests/hub
}


@pytest.mark.parametrize("part", ["", *WITHOUT_EXAMPLE])
def test_what_a_user_calls_has_an_example(part: str) -> None:
    module = import_module(f"modeling_rabtriever.{part}".rstrip("."))
    public = {name: getattr(module, name) for name in module.__all__}
    described = {name: found for name, found in public.items() if isfunction(found) or isclass(found)}
    without = {name for name, found in described.items() if ">>> " not in (found.__doc__ or "")}
    hub = {name for name in without if name.endswith(("Config", "Output"))} if not part else set()
    assert without == WITHOUT_EXAMPLE.get(part, hub)


def test_only_what_pushes_to_the_hub_is_left_out() -> None:
    skipped = [line.strip() for path in MODULES for line in path.read_text().splitlines() if "doctest: +SKIP" in line]
    assert len(skipped) == 1
    assert skipped[0].startswith(">>> release(")
