"""Recipes: shared keys, sections, overrides, unknown keys."""

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoConfig

from modeling_rabtriever.distillation.encoders import student_config
from modeling_rabtriever.recipes import backbone_path, recipe_names
from modeling_rabtriever.reranking.pairs import draw_groups
from modeling_rabtriever.stages import distill, pipeline, pretrain, train_reranker
from modeling_rabtriever.stages.recipe import STAGES, parse_stage, read_recipe
from modeling_rabtriever.tasks.beir import load_beir
from modeling_rabtriever.tasks.household import write_household

STUDENTS = recipe_names("students")
RECIPES = [name for name in recipe_names() if name not in STUDENTS]


@dataclass
class _Arguments:
    data: str
    rate: float = 0.5
    names: list[str] = field(default_factory=list)


def _recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_beats_section_beats_shared_beats_default(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "data: here\nrate: 1\ndistill: {rate: 2.0e-3, names: [a, b]}\n")
    (shared,) = parse_stage("evaluate", (_Arguments,), ["--config", path])
    (section,) = parse_stage("distill", (_Arguments,), ["--config", path])
    (flag,) = parse_stage("distill", (_Arguments,), ["--config", path, "--rate", "3", "--names", "c"])
    (plain,) = parse_stage("distill", (_Arguments,), ["--data", "there"])
    assert (shared.rate, section.rate, flag.rate, plain.rate) == (1, 0.002, 3, 0.5)
    assert (shared.data, section.names, flag.names, plain.data) == ("here", ["a", "b"], ["c"], "there")


def test_later_recipes_win_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("data: here\nrate: 1\ndistill: {rate: 2, names: [a]}\n")
    second.write_text("data: there\ndistill: {rate: 3}\n")
    (arguments,) = parse_stage("distill", (_Arguments,), ["--config", str(first), "--config", str(second)])
    assert (arguments.data, arguments.rate, arguments.names) == ("there", 3, ["a"])


def test_a_recipe_changes_its_base(tmp_path: Path) -> None:
    mine = _recipe(tmp_path, "base: household\noutput_dir: here\ndistill: {candidates: 3}\n")
    (shared, sections), (base_shared, base_sections) = read_recipe(mine), read_recipe("household")
    assert shared == {**base_shared, "output_dir": "here"}
    assert sections == {**base_sections, "distill": {**base_sections["distill"], "candidates": 3}}
    second = tmp_path / "second.yaml"
    second.write_text(f"base: {mine}\n")
    with pytest.raises(ValueError, match=r"base .*recipe.yaml has a base too; accepted: a recipe without one"):
        read_recipe(second)
    second.write_text("base: nothing\n")
    with pytest.raises(ValueError, match="recipe nothing is not a file or a known name; accepted: "):
        read_recipe(second)


@pytest.mark.parametrize("student", STUDENTS)
def test_students_fit_beside_a_task(student: str, tmp_path: Path) -> None:
    base = student.partition("-")[0]  # the recipe it changes, or itself
    flags = ["--config", "household", "--config", base, "--config", student, "--output_dir", str(tmp_path)]
    _, _, shape, *_, config = parse_stage("distill", distill.ARGUMENTS, flags)
    text_config = AutoConfig.for_model("qwen2", hidden_size=32, num_hidden_layers=2)
    found = student_config(text_config, ["last", "mean"], is_retriever=False, shape=shape)
    changed = read_recipe(base, student)[1]["distill"]
    assert student == base or len(read_recipe(student)[1]["distill"]) <= 6  # only what it changes
    assert shape.predictor_type == changed["predictor_type"] and config.kl_weight == changed["kl_weight"]
    assert found.document_map == (shape.predictor_type == "hadamard") and config.train_encoder == "none"


def test_numbers_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    (arguments,) = parse_stage("distill", (_Arguments,), ["--config", _recipe(tmp_path, "data: x\nrate: 1e-3\n")])
    assert arguments.rate == 0.001


def test_the_recipe_for_any_folder_learns_documents_that_differ_by_one_word(tmp_path: Path) -> None:
    """It did not: the teacher got the place of the household's objects at chance, and 88% of its groups right.

    Where most groups can be told apart without the place, nothing teaches it; and attention that is dropped at random
    does not learn to find a word of the document in the query. Training itself takes minutes and is in the log.
    """
    flags = ["--config", "from-scratch", "--data", str(write_household(tmp_path))]
    run, backbone, *_ = parse_stage("pretrain", pretrain.ARGUMENTS, flags)
    assert json.loads(backbone_path(backbone.model_name_or_path).read_text()).get("attention_dropout", 0) == 0
    _, _, _, negatives, *_, config = parse_stage("train_reranker", train_reranker.ARGUMENTS, flags)
    task = load_beir(run.data)
    places = [document.rpartition(" to the ")[2] for document in task.corpus]
    drawn = draw_groups(task, task.split("train"), negatives, config.seed)
    groups = [documents for _, documents in islice(drawn, 1000)]
    told_by_place = [places[group[0]] not in [places[row] for row in group[1:]] for group in groups]
    assert sum(told_by_place) > 0.05 * len(groups)  # with seven negatives: 4 of 1,000
    assert config.per_device_train_batch_size % len(groups[0]) == 0


@pytest.mark.parametrize("text", ["data: x\nrat: 1\n", "data: x\ndistill: {rat: 1}\n"])
def test_unknown_keys_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ValueError, match="unknown keys for distill: rat; accepted: what python -m training.distill --help"
    ):
        parse_stage("distill", (_Arguments,), ["--config", _recipe(tmp_path, text)])


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="--rat"):
        parse_stage("distill", (_Arguments,), ["--data", "x", "--rat", "1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a mapping"),
        ("distill: 3\n", "distill is 3; accepted: a mapping"),
        ("", "is not a mapping"),
        ("when: 2020-13-45\n", "is not YAML .month must be"),
        ("seed: 1\ndata: x\nseed: 2\n", "has seed twice, in lines 1 and 3; accepted: every key once"),
        ("distill:\n  rounds: 1\n  rounds: 2\n", "has rounds twice, in lines 2 and 3"),
        ("data: " + "[" * 20_000, "is not YAML .*; accepted: a YAML mapping"),
    ],
)
def test_malformed_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(_recipe(tmp_path, text))


def test_a_missing_recipe_is_named() -> None:
    with pytest.raises(
        ValueError, match="recipe nowhere is not a file or a known name; accepted: .* cose, .*students/paper"
    ):
        read_recipe("nowhere")


def test_recipes_and_backbones_are_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared, sections = read_recipe("household", "students/paper")
    assert shared["seed"] == 0 and sections["distill"]["predictor_type"] == "paper"
    for section in sections.values():
        name = section.get("model_name_or_path", "")
        assert not name.endswith(".json") or backbone_path(name).is_file()
    with pytest.raises(ValueError, match="backbones/qwen2.json is not a file; accepted: .* backbones/qwen2-1m.json"):
        backbone_path("backbones/qwen2.json")
    Path("household").write_text("seed: 7\n")
    Path("mine.yaml").write_text("seed: 7\n")
    assert read_recipe("household")[0]["seed"] == 0  # a name is a name wherever one stands
    assert read_recipe("mine.yaml")[0]["seed"] == read_recipe("./household")[0]["seed"] == 7


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_the_tree_is_read_by_every_stage(recipe: str, stage: str) -> None:
    parse_stage(stage, pipeline._STAGES[stage].ARGUMENTS, ["--config", recipe, "--data", "anywhere"])


@pytest.mark.parametrize("student", ["students/paper", "students/rabtriever"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_student_recipe_replaces_the_student_of_any_task(recipe: str, student: str) -> None:
    """These two students learn from the teacher's states, so they read its backbone and no labels."""
    flags = ["--config", recipe, "--config", student, "--data", "anywhere"]
    _, _, shape, *_, config = parse_stage("distill", distill.ARGUMENTS, flags)
    assert (shape.encoder, config.train_encoder, config.label_share) == (None, "none", 0)
    assert config.mse_weight > 0 and shape.predictor_type == ("paper" if student.endswith("paper") else "hadamard")


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_the_stages_own_settings(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        pipeline._STAGES[stage].main(["--help"])
    assert stop.value.code == 0
    assert "--data" in capsys.readouterr().out
