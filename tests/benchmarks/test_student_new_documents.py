"""Held-out documents: what training sees of them, and how rankings of them are judged."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import student_new_documents, student_tables
from benchmarks.bills import Setting
from benchmarks.student_equal_bill import ALONE, AS_IT_IS, OURS
from benchmarks.student_new_documents import AMONG, FULL, bars_of, held_out, measure, views, without
from benchmarks.students import TeacherBench
from benchmarks.tasks import TITLES, TaskRun
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.tasks.beir import Split, load_beir
from tests.training.tiny_encoders import write_sentence_transformer


def test_training_sees_no_document_held_out_but_every_query(beir_folder: Path) -> None:
    task = load_beir(beir_folder)
    rows = held_out(task, seed=0)
    assert rows == held_out(task, seed=0) and len(rows) == 2  # a fifth of twelve
    small = without(task, rows)
    assert small.corpus == [text for row, text in enumerate(task.corpus) if row not in rows]
    train, before = small.split("train"), task.split("train")
    assert train.queries == before.queries
    for own, known in zip(train.relevant, before.relevant, strict=True):
        left = {task.corpus[row]: grade for row, grade in known.items() if row not in rows}
        assert {small.corpus[row]: grade for row, grade in own.items()} == left
    assert all(small.split("dev").relevant) and not all(train.relevant)


def test_a_query_is_judged_by_the_held_out_documents_alone() -> None:
    # Documents 1 and 3 are held out; query 0 is answered by 0 (seen) and 1, query 1 by 2 (seen), query 2 by 3.
    split = Split("test", ["a", "b", "c"], ["a", "b", "c"], [{0: 1, 1: 1}, {2: 1}, {3: 1}])
    scores = torch.tensor([[9.0, 5, 1, 0], [0, 0, 9, 0], [8, 9, 0, 1]])
    found = views(scores, split, [1, 3])
    assert found[AMONG]["success@1"].tolist() == [1, 0] and found[AMONG]["mrr@10"].tolist() == [1, 0.5]
    # The seen answer 0 is taken away from the first query; for the last, documents 1 and 0 are ahead of 3.
    assert found[FULL]["success@1"].tolist() == [1, 0] and found[FULL]["mrr@10"].tolist() == pytest.approx([1, 1 / 3])


@pytest.mark.parametrize("start", ["teacher", "tiny"])
def test_rows_and_bars(start: str, reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path,
                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    setting = Setting(3, 12, 6, (1e-3,), candidates=4, rounds=1)
    monkeypatch.setattr(student_new_documents, "BACKBONE_SETTING", setting)
    monkeypatch.setattr(student_new_documents, "ENCODER_SETTING", setting)
    reranker.save_pretrained(tmp_path / "teacher")
    (tmp_path / "recipe.yaml").write_text("{}")
    run = TaskRun("animals", 0, str(beir_folder), config=str(tmp_path / "recipe.yaml"))
    bench = TeacherBench(run, tmp_path / "teacher", tmp_path / "runs", splits=("test",))
    encoder = None if start == "teacher" else str(write_sentence_transformer(tmp_path / "tiny", "bert", "mean"))
    rows: list[dict[str, Any]] = measure(bench, encoder, ("InfoNCE",))
    methods = ["teacher", OURS, ALONE, "InfoNCE", *([] if encoder is None else [AS_IT_IS])]
    assert [row["method"] for row in rows] == [method for method in methods for _ in (AMONG, FULL)]
    assert all(row["n"] == 4 and row["held_out"] == 2 and row["documents"] == 12 for row in rows)
    ours = rows[2]
    kept = ours["mrr@10"]["kept"]["mean"]
    assert kept == pytest.approx(ours["mrr@10"]["mean"] / rows[0]["mrr@10"]["mean"])
    right = [row["success@1"]["mean"] for row in rows[:2]]  # of the teacher, by view
    expected = [row["success@1"]["mean"] / mean for row, mean in zip(rows[2:4], right, strict=True) if mean]
    assert [bar["value"] for bar in bars_of(rows)] == pytest.approx(expected)
    assert ours["success@1"]["p"] == 1  # against itself
    monkeypatch.setitem(TITLES, "animals", "Animals")
    table = student_tables.student_new_documents({"rows": rows})
    assert table.count("| InfoNCE |") == 2 and f"{AMONG} (n = 4, 1 seed) | R@1 |" in table
