"""What the ablation gives every student of a teacher."""

from pathlib import Path

import pytest
import yaml

from benchmarks.student_ablation import left_out
from benchmarks.students import TeacherBench, recipe_flags
from benchmarks.tasks import RECIPES, TaskRun
from modeling_rabtriever import GenerativeRerankerModel


@pytest.fixture
def teacher(reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved teacher with five generated queries beside it, and the recipe of its task."""
    recipe = tmp_path / "recipe.yaml"
    distill = {"unjudged_queries": "{output_dir}/queries/queries.jsonl", "initial_candidates": 4, "refresh_rounds": 0}
    recipe.write_text(yaml.safe_dump({"distill": distill, "evaluate": {"dtype": "float32"}}))
    monkeypatch.setitem(RECIPES, "animals", str(recipe))
    folder = tmp_path / "run" / "teacher" / "model"
    reranker.save_pretrained(folder)
    reranker.processor.save_pretrained(folder)
    (tmp_path / "run" / "queries").mkdir()
    (tmp_path / "run" / "queries" / "queries.jsonl").write_text("one\ntwo\nthree\nfour\nfive\n")
    return folder


def queries_of(teacher: Path, data: Path, unjudged: int | None) -> Path:
    run = TaskRun("animals", 0, str(data), ["--config", RECIPES["animals"], "--data", str(data)], [], None)
    flags = TeacherBench(run, teacher, teacher.parents[2] / "students", splits=(), unjudged=unjudged).flags("any")
    return Path(flags[flags.index("--unjudged_queries") + 1])


def test_students_get_the_first_of_the_generated_queries(teacher: Path, beir_folder: Path) -> None:
    assert queries_of(teacher, beir_folder, 2).read_text() == "one\ntwo\n"
    assert queries_of(teacher, beir_folder, None) == teacher.parents[1] / "queries" / "queries.jsonl"
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"unjudged is {count}; accepted: 1 to 5"):
            queries_of(teacher, beir_folder, count)


def test_a_student_that_changes_another_is_given_behind_it() -> None:
    assert recipe_flags("household", "rabtriever") == ["--config", "students/rabtriever"]
    behind = ["--config", "students/rabtriever", "--config", "students/rabtriever-uniform"]
    assert recipe_flags("household", "rabtriever-uniform") == behind
    behind = ["--config", "students/paper", "--config", "students/paper-without-kl"]
    assert recipe_flags("household", "paper-without-kl") == [*behind, "--initial_candidates", "40"]


@pytest.mark.usefixtures("teacher")
def test_rows_that_say_nothing_on_a_task_are_left_out() -> None:
    assert left_out("animals", "rabtriever", documents=12) is None
    assert "shared" in str(left_out("animals", "rabtriever-without-shared-words", documents=12))
    assert left_out("animals", "rabtriever-uniform", documents=12) is None
    assert "whole corpus" in str(left_out("animals", "rabtriever-uniform", documents=4))
