"""What every method is given at the same bill."""

from pathlib import Path

import pytest
import yaml

from benchmarks import student_equal_bill
from benchmarks.student_equal_bill import OURS, bars_of, measure, our_student, training_rows
from benchmarks.students import TeacherBench
from benchmarks.tasks import RECIPES, TaskRun
from modeling_rabtriever import GenerativeRerankerModel


@pytest.fixture
def bench(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TeacherBench:
    recipe = tmp_path / "recipe.yaml"
    distill = {"initial_candidates": 4, "refresh_rounds": 2, "refresh_candidates": 2, "embedding_dim": 16}
    distill |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    recipe.write_text(yaml.safe_dump({"distill": distill, "evaluate": {"dtype": "float32"}}))
    monkeypatch.setitem(RECIPES, "animals", str(recipe))
    for name, value in {"RATES": (1e-3,), "STEPS": 4, "BATCH": 12}.items():
        monkeypatch.setattr(student_equal_bill, name, {"animals": value})
    monkeypatch.setattr(student_equal_bill, "WIDTH", 3)
    reranker.save_pretrained(tmp_path / "teacher")
    shared = ["--config", str(recipe), "--data", str(beir_folder)]
    return TeacherBench(
        TaskRun("animals", 0, str(beir_folder), shared, [], None), tmp_path / "teacher", tmp_path / "runs"
    )


def test_every_method_hears_of_our_students_pairs(bench: TeacherBench) -> None:
    student, bill, seconds = our_student(bench, 1e-3)
    assert seconds > 0 and student.config.answer_size == bench.reranker.config.hidden_size
    assert bill.documents.shape == (36, 8) and len(bill.judged) == 36
    for own, relevant in zip(bill.documents.tolist(), bill.relevant, strict=True):
        assert len({*own}) == 8 and {*own} >= {*relevant}
    row, place = 5, 3
    pair = (bill.queries[row], bench.task.corpus[bill.documents[row, place]])
    assert bill.scores[row, place].item() == pytest.approx(bench.reranker.predict([pair]).item(), abs=1e-4)
    rows = training_rows(bench, bill, "KL", 5)
    assert rows.column_names == ["query", "document_0", "document_1", "document_2", "label"] and len(rows) == 5
    asked = rows[0]["query"].removeprefix("Query: ").removesuffix("\nRelevant:")
    row = bill.queries.index(asked)
    for place in range(3):
        document = rows[0][f"document_{place}"].removeprefix("Document: ").removesuffix("\n")
        column = bill.documents[row].tolist().index(bench.task.corpus.index(document))
        assert rows[0]["label"][place] == pytest.approx(bill.scores[row, column].item())
    assert training_rows(bench, bill, "InfoNCE", 5).column_names == ["query", "document_0"]


def test_rows_and_bars(bench: TeacherBench) -> None:
    rows = measure(bench)
    assert [row["method"] for row in rows] == [OURS, *student_equal_bill.METHODS]
    assert [row["teacher_pairs"] for row in rows] == [288, 288, 288, 288, 0]
    assert all(row["n"] == 24 and 0 <= row["ndcg@10"]["mean"] <= 1 and row["rate"] == 1e-3 for row in rows)
    assert rows[0]["ndcg@10"]["p"] is None and all(0 < row["ndcg@10"]["p"] <= 1 for row in rows[1:])
    assert [bar["limit"] for bar in bars_of(rows)] == [0.0, 0.97]
