"""What a bench gives the students of a teacher, and what its rows hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import (
    document_states,
    student_ablation,
    student_budget,
    student_options,
    student_tables,
    teacher_objectives,
)
from benchmarks.students import TeacherBench, student_recipes
from benchmarks.tasks import TITLES, TaskRun, filled, settings_of, task_parser, task_runs
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation import RabtrieverDistillationConfig, StudentArguments
from modeling_rabtriever.identity import encoder_fingerprint
from modeling_rabtriever.tasks.beir import load_beir

BACKBONE = {
    "model_type": "qwen2", "vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 320,
}  # fmt: skip
DISTILL = {
    "train_encoder": "none", "embedding_dim": 16, "candidates": 4, "rounds": 1, "max_steps": 4, "use_cpu": True,
    "eval_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "backbone.json").write_text(json.dumps(BACKBONE))
    teacher = {
        "model_name_or_path": str(tmp_path / "backbone.json"), "instruction": "Relevant:", "dev_groups": 8,
        "negatives_per_positive": 3, "max_steps": 2, "activation_checkpointing": False, "use_cpu": True,
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return {"train_reranker": teacher, "distill": dict(DISTILL), "evaluate": {"dtype": "float32"}}


def run_of(recipe: dict[str, Any], data: Path) -> TaskRun:
    path = data.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return TaskRun("animals", 0, str(data), config=str(path))


@pytest.fixture
def teacher(reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    """A saved teacher with three generated queries beside it."""
    folder = tmp_path / "run" / "teacher" / "model"
    reranker.save_pretrained(folder)
    (tmp_path / "run" / "queries").mkdir()
    lines = [json.dumps({"_id": f"written-{name}", "text": f"{name} animal"}) for name in ("1st", "2nd", "3rd")]
    (tmp_path / "run" / "queries" / "queries.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def bench_of(recipe: dict[str, Any], data: Path, teacher: Path, **more: Any) -> TeacherBench:
    return TeacherBench(run_of(recipe, data), teacher, data.parent / "students", **{"splits": (), **more})


def test_students_get_the_first_of_the_generated_queries(
    recipe: dict[str, Any], teacher: Path, beir_folder: Path
) -> None:
    assert len(bench_of(recipe, beir_folder, teacher).train) == 36  # a recipe without generated queries
    recipe["distill"]["unlabelled_queries"] = "{output_dir}/queries/queries.jsonl"
    few = bench_of(recipe, beir_folder, teacher, unlabelled=2).train
    assert few.queries[36:] == ["1st animal", "2nd animal"] and few.relevant[36:] == [{}, {}]
    assert len(bench_of(recipe, beir_folder, teacher).train) == 39
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"unlabelled is {count}; accepted: 1 to 3"):
            _ = bench_of(recipe, beir_folder, teacher, unlabelled=count).train


def test_a_student_that_changes_another_is_given_behind_it() -> None:
    assert student_recipes(None) == []
    assert student_recipes("rabtriever") == ["students/rabtriever"]
    assert student_recipes("paper-without-kl") == ["students/paper", "students/paper-without-kl"]


def test_settings_come_before_the_student_recipe_and_that_before_the_tasks(
    recipe: dict[str, Any], teacher: Path, beir_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[RabtrieverDistillationConfig, StudentArguments]] = []

    def distill(_: Any, __: Any, config: Any, shape: Any, ___: Any) -> Any:
        given.append((config, shape))
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.students.distill", distill)
    bench = bench_of(recipe, beir_folder, teacher)
    with pytest.raises(KeyboardInterrupt):
        bench.distil("any", "paper", candidates=7)
    ((config, shape),) = given
    assert (config.candidates, config.rounds, config.max_steps) == (7, 0, 4)  # ours, the paper's, the task's
    assert (shape.predictor_type, shape.embedding_dim) == ("paper", None)


def test_a_finished_student_is_read(recipe: dict[str, Any], teacher: Path, beir_folder: Path) -> None:
    bench = bench_of(recipe, beir_folder, teacher)
    student = bench.distil("any")
    assert student.config.embedding_dim == 16
    recipe["distill"]["max_steps"] = 9
    again = bench_of(recipe, beir_folder, teacher).distil("any")
    assert encoder_fingerprint(again) == encoder_fingerprint(student)


def test_a_row_holds_a_system_against_the_teacher(recipe: dict[str, Any], teacher: Path, beir_folder: Path) -> None:
    bench = bench_of(recipe, beir_folder, teacher, splits=("dev", "test", "missing"))
    assert [split.name for split in bench.splits] == ["dev", "test"]
    row = student_ablation.measure(bench, "BM25")
    assert row["test"].keys() == {"n", "teacher", "system", "mrr@10"}
    assert row["test"]["mrr@10"].keys() == {"teacher", "system"}
    row = student_ablation.measure(bench, "rabtriever")
    assert row["dev"].keys() == {"n", "teacher", "system", "mrr@10"}
    texts = bench.task.split("test").queries, bench.task.corpus
    expected = (bench.reranker.score(*texts).argmax(1) == torch.arange(12).repeat(2)).double().mean()
    assert row["test"]["teacher"]["mean"] == pytest.approx(expected.item())


def test_the_ablations_table_has_a_line_per_student_and_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TITLES, "animals", "Animals")
    figure = {"low": 0.0, "high": 1.0}

    def row(seed: int, student: str, mean: float) -> dict[str, Any]:
        first = {"teacher": {"mean": 0.9, **figure}, "system": {"mean": mean, **figure}}
        return {"task": "animals", "seed": seed, "student": student, "test": {"n": 24, **first, "mrr@10": first}}

    rows = [row(seed, *what) for seed in range(3) for what in (("BM25", 0.2), ("paper", 0.3))]
    rows.append(row(0, "rabtriever", 0.4))  # of one seed
    text = student_tables.student_ablation({"rows": rows})
    for line in ("| teacher | 90.0 [0.0, 100.0] |", "| BM25 | 20.0 [", "| paper | 30.0 [", "| rabtriever |  |"):
        assert text.count(line) == 2  # R@1 and MRR@10


def test_a_budget_is_met_on_policy_and_uniformly(recipe: dict[str, Any], teacher: Path, beir_folder: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(student_budget, "BILLS", (8,))
    monkeypatch.setattr(student_budget, "WIDTHS", (6,))
    bench = bench_of(recipe, beir_folder, teacher, splits=("test",))
    rows = list(student_budget.rows_of(bench, ["k", "bill"]))
    assert [(row["axis"], row["policy"], row["value"]) for row in rows] == [
        ("k", "on-policy", 6), ("bill", "on-policy", 8), ("bill", "uniform", 8)
    ]  # fmt: skip
    assert bench.distil("on-policy-k-6").config.embedding_dim == 6
    (bar,) = student_budget.bars_of(rows)
    ahead = rows[1]["test"]["system"]["mean"] - rows[2]["test"]["system"]["mean"]
    assert bar["value"] == pytest.approx(ahead)


def test_teachers_are_compared_by_what_their_students_keep(recipe: dict[str, Any], beir_folder: Path) -> None:
    run, runs = run_of(recipe, beir_folder), beir_folder.parent / "states"
    rows = document_states.measure(run, ["ordinary", "summary token"], runs)
    assert [row["row"] for row in rows] == ["ordinary", "summary token"]
    for row in rows:
        assert row["test"].keys() >= {"n", "teacher", "system"} and row["dev"]["n"] == 12
    processors = [runs / f"animals-{name}-seed0" / "teacher" / "model" for name in ("ordinary", "summary-token")]
    said = ["<|endoftext|>" in json.loads((path / "processor_config.json").read_text())["document_template"]
            for path in processors]  # fmt: skip
    assert said == [False, True]


def test_objectives_are_two_teachers(recipe: dict[str, Any], beir_folder: Path) -> None:
    run = run_of(recipe, beir_folder)
    rows = teacher_objectives.measure(run, beir_folder.parent / "objectives", load_beir(beir_folder))
    assert [row["objective"] for row in rows] == ["sft", "listwise"]
    for row in rows:
        assert row["test"].keys() == {"n", "success@1", "mrr@10", "ece"} and row["test"]["n"] == 24
        assert 0 <= row["dev"]["ece"] <= 1


def test_a_setting_that_no_stage_has_is_refused() -> None:
    with pytest.raises(ValueError, match="settings hold initial_candidates"):
        filled((StudentArguments,), {"initial_candidates": 3, "embedding_dim": 4})


def test_the_command_line_changes_every_teacher() -> None:
    parser = task_parser(None, "runs")
    argv = ["esconv=data", "--steps", "esconv=5", "--seeds", "0", "1", "--settings", "bf16=true", "learning_rate=0.1"]
    arguments = parser.parse_args(argv)
    assert settings_of(arguments) == {"bf16": True, "learning_rate": 0.1}
    runs = list(task_runs(arguments))
    assert [(run.task, run.seed, run.data) for run in runs] == [("esconv", 0, "data"), ("esconv", 1, "data")]
    assert all(run.teacher == {"max_steps": 5, "bf16": True, "learning_rate": 0.1} for run in runs)


def test_an_option_is_changed_alone(
    recipe: dict[str, Any], teacher: Path, beir_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TITLES, "animals", "Animals")
    monkeypatch.setattr(student_options, "BASE", {"encoder_learning_rate": 1e-3, "train_encoder": "full"})
    bench = bench_of(recipe, beir_folder, teacher, splits=("dev",))
    names = [student_options.AS_IT_IS, "index width 64", "half of the loss from labels"]
    rows = student_options.rows_of(bench, names)
    assert [(row["option"], row["documents"]) for row in rows] == [(name, 12) for name in names]
    assert bench.distil("options-index-width-64").config.embedding_dim == 64
    first, second = student_options.bars_of(rows)
    worth = rows[2]["dev"]["system"]["mean"] - rows[0]["dev"]["system"]["mean"]
    assert second["value"] == pytest.approx(worth) and first["limit"] == student_options.LEVEL
    assert "| half of the loss from labels |" in student_tables.student_options({"rows": rows})
