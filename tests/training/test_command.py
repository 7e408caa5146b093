"""The command line of a stage: values of the right type, null for none, help to read, bad input in one line."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever.stages import distill, evaluate, pipeline, train_reranker
from modeling_rabtriever.stages.recipe import STAGES, parse_stage

ROOT = Path(__file__).parents[2]


@dataclass
class _Arguments:
    data: str = field(default="here", metadata={"help": "Where 100% of the data is."})
    count: int = 1
    rate: float = 0.5
    fast: bool = False
    limit: int | None = 3
    encoder: str | None = "one"
    tracker: None | str | list[str] = "none"  # noqa: RUF036  # the order transformers has
    names: list[str] | None = None
    kind: str = field(default="a", metadata={"choices": ["a", "b"]})
    about: dict[str, Any] | str | None = None


def _parse(tmp_path: Path, recipe: str, *flags: str) -> _Arguments:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    (arguments,) = parse_stage("distill", (_Arguments,), ["--config", str(path), *flags])
    return arguments


@pytest.mark.parametrize("null", ["null", "none", "None"])
def test_null_on_the_command_line_is_no_value(tmp_path: Path, null: str) -> None:
    flags = ["--limit", null, "--encoder", null, "--names", null, "--about", null, "--data", null]
    found = _parse(tmp_path, "names: [x]\n", *flags)
    assert (found.limit, found.encoder, found.names, found.about) == (None, None, None, None)
    assert found.data == null  # a required string is kept as it is


def test_a_default_called_none_keeps_its_meaning(tmp_path: Path) -> None:
    assert _parse(tmp_path, "{}", "--tracker", "none").tracker == "none"
    assert _parse(tmp_path, "{}", "--tracker", "null").tracker is None


@pytest.mark.parametrize("option", ["--sentence_encoder", "--candidates", "--max_queries", "--model"])
def test_every_optional_option_of_a_stage_takes_null(option: str) -> None:
    flags = ["--data", "x", option, "null"]
    _, arguments, *_ = parse_stage("evaluate", evaluate.ARGUMENTS, flags)
    assert getattr(arguments, option.removeprefix("--")) is None


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("count: many", "count is 'many' for distill; accepted: a whole number"),
        ("count: 1.5", "count is 1.5 .*; accepted: a whole number"),
        ("count: true", "count is True .*; accepted: a whole number"),
        ("count: null", "count is None .*; accepted: a whole number"),
        ("rate: [1]", r"rate is \[1\] .*; accepted: a number"),
        ("fast: 1", "fast is 1 .*; accepted: true or false"),
        ("data: yes", "data is True .*; accepted: a string"),  # YAML's yes is a boolean
        ("limit: few", "limit is 'few' .*; accepted: a whole number or null"),
        ("names: one", "names is 'one' .*; accepted: a list, each item a string or null"),
        ("names: [1]", r"names is \[1\] .*; accepted: a list, each item a string or null"),
        ("kind: c", "kind is 'c' .*; accepted: a, b"),
        ("about: 3", "about is 3 .*; accepted: a mapping or a string or null"),
        ("3: 4", "has keys that are not texts; accepted: a YAML mapping"),
        ("count: [", "is not YAML .*; accepted"),
    ],
)
def test_values_of_a_recipe_are_checked(tmp_path: Path, recipe: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse(tmp_path, recipe)


def test_values_of_a_recipe_keep_their_type(tmp_path: Path) -> None:
    found = _parse(tmp_path, "{rate: 1, limit: null, tracker: [a], about: {x: 1}, names: [a, '1'], kind: b}")
    assert (found.rate, found.limit, found.tracker, found.about, found.names) == (1, None, ["a"], {"x": 1}, ["a", "1"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--count", "many"], "--count: invalid int value: 'many'"),
        (["--kind", "c"], r"--kind: invalid choice: 'c' \(choose from"),
        (["--names"], "--names: expected at least one argument"),
        (["--about", '{"x": 1, "x": 2}'], "--about: .* is not JSON .the key 'x' stands twice.; accepted: a mapping"),
        (["--about", "{x"], "--about: '{x' is not JSON .*; accepted: a mapping"),
        (["--rat", "1", "word"], "unknown arguments for distill: --rat 1 word; accepted: what python -m training"),
    ],
)
def test_flags_are_checked(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse(tmp_path, "{}", *flags)


def test_a_mapping_is_written_as_json(tmp_path: Path) -> None:
    assert _parse(tmp_path, "{}", "--about", '{"x": [1]}').about == {"x": [1]}


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_the_stages_own_options(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stop:
            pipeline._STAGES[stage].main([flag])
        assert stop.value.code == 0
        shown[flag] = capsys.readouterr().out
    assert len(shown["--help"].splitlines()) < 180
    assert pipeline._STAGES[stage].__doc__.splitlines()[0] in shown["--help"] and "--help-all" in shown["--help"]
    assert "--data TEXT" in shown["--help"] and "--data" in shown["--help-all"]
    trains = stage != "evaluate"
    assert ("--learning_rate X" in shown["--help"]) == trains and "--hub_model_id" not in shown["--help"]
    assert ("--hub_model_id" in shown["--help-all"]) == trains
    assert not any(f"--{name} " in text for text in shown.values() for name in ("max_length", "remove_unused_columns"))


def test_help_says_what_an_option_takes_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    for module, lines in (
        (
            train_reranker,
            ("--objective {sft,listwise}", "[sft]", "--negatives_per_positive N", "--use_peft true|false"),
        ),
        (distill, ("--train_encoder {none,lora,full}", "[full]", "--embedding_dim N")),
    ):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        shown = capsys.readouterr().out
        assert all(line in shown for line in lines)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["training.pipeline", "--config", "nowhere.yaml"], "recipe nowhere.yaml is not a file or a known name"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["training.train_reranker", "--max_steps", "x"], "--max_steps/--max-steps: invalid int value: 'x'"),
                (["training.evaluate", "--data", "nowhere"], "nowhere is not a task; accepted"),
                (["training.distill"], "the following arguments are required: --data/--task"),
                (["model_cards.generate", "nowhere"], "nowhere/evaluation holds no report; accepted"),
            )
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(tmp_path: Path, command: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"python -m {command[0]}: ")
