"""What every method is given at the same bill."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from benchmarks import ranker, student_corpora, student_cost, student_equal_bill, student_tables
from benchmarks.bills import Bill, Setting, our_student
from benchmarks.opponents import HARD, METHODS, Opponent, kept_part
from benchmarks.ranker import sample_rows
from benchmarks.student_equal_bill import ALONE, OURS, bars_of, measure
from benchmarks.students import TeacherBench
from benchmarks.tasks import TITLES, TaskRun
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.identity import encoder_fingerprint
from tests.training.tiny_encoders import write_sentence_transformer

SETTING = Setting(4, 12, 6, (1e-3,), candidates=8, rounds=2)


@pytest.fixture
def bench(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TeacherBench:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{}")
    monkeypatch.setitem(student_equal_bill.SETTINGS, "animals", SETTING)
    reranker.save_pretrained(tmp_path / "teacher")
    run = TaskRun("animals", 0, str(beir_folder), config=str(recipe))
    return TeacherBench(run, tmp_path / "teacher", tmp_path / "runs", splits=())


def test_every_method_hears_of_our_students_pairs(bench: TeacherBench, tmp_path: Path) -> None:
    train, corpus = bench.task.split("train"), bench.task.corpus
    places = tmp_path / "ours", tmp_path / "states"
    student, bill, seconds = our_student(bench.reranker, bench.task, train, SETTING, 1e-3, *places)
    assert seconds > 0 and student.config.embedding_dim == bench.reranker.config.hidden_size
    assert bill.documents.shape == (36, 8) and len(bill.labelled) == 36
    for own, relevant in zip(bill.documents.tolist(), bill.relevant, strict=True):
        assert len({*own}) == 8 and {*own} >= {*relevant}
    row, place = 5, 3
    pair = (bill.queries[row], corpus[bill.documents[row, place]])
    assert bill.scores[row, place].item() == pytest.approx(bench.reranker.predict([pair]).item(), abs=1e-4)

    again, read, _ = our_student(bench.reranker, bench.task, train, SETTING, 1e-3, *places)
    assert encoder_fingerprint(again) == encoder_fingerprint(student) and read.scores.equal(
        bill.scores
    )  # a finished one is read

    opponent = Opponent(bench.reranker, corpus, bill, SETTING)
    assert opponent.methods == tuple(method for method in METHODS if method != HARD)
    rows = opponent.rows("KL", 5)
    assert rows.column_names == ["query", *(f"document_{place}" for place in range(8)), "label"] and len(rows) == 5
    asked = rows[0]["query"].removeprefix("Query: ").removesuffix("\nRelevant:")
    row = bill.queries.index(asked)
    for place in range(8):
        document = rows[0][f"document_{place}"].removeprefix("Document: ").removesuffix("\n")
        column = bill.documents[row].tolist().index(corpus.index(document))
        assert rows[0]["label"][place] == pytest.approx(bill.scores[row, column].item())
    assert opponent.rows("InfoNCE", 5).column_names == ["query", "document_0"]
    wide = Opponent(bench.reranker, corpus, bill, dataclasses.replace(SETTING, labels_batch=24, batch=24, steps=3))
    assert (wide.length("InfoNCE"), wide.length("KL")) == ((12, 6), (24, 3))


def test_texts_are_cut_at_the_teachers_lengths(bench: TeacherBench, tmp_path: Path) -> None:
    encoder = write_sentence_transformer(tmp_path / "tiny", "bert", "mean")
    tokenizer, long = SentenceTransformer(str(encoder), device="cpu").tokenizer, "the brown dog eats a big bone"
    whole = tokenizer(long, add_special_tokens=False)["input_ids"]
    for side, ids in (("right", whole[:3]), ("left", whole[-3:])):
        (kept,) = kept_part(tokenizer, [long], 3, side)
        assert kept in long and tokenizer(kept, add_special_tokens=False)["input_ids"] == ids
    assert kept_part(tokenizer, [long, ""], len(whole), "left") == [long, ""]

    shorter = {"max_query_length": 3, "max_document_length": 2, "query_truncation_side": "left"}
    bench.reranker.processor = bench.reranker.processor.replace(**shorter)
    bill = Bill([long], [[0]], torch.tensor([[0]]), torch.zeros(1, 1))
    for start in (str(encoder), None):
        opponent = Opponent(bench.reranker, [long], bill, SETTING, start)
        texts = opponent.rows("KL", 1)[0]
        used = tokenizer if start else bench.reranker.processor.tokenizer
        assert kept_part(used, [long], 3, "left")[0] in texts["query"] and long not in texts["query"]
        assert kept_part(used, [long], 2, "right")[0] in texts["document_0"] and long not in texts["document_0"]
        trained = opponent.as_it_is()
        assert opponent.scores(trained, [long]).equal(opponent.scores(trained, ["nothing else " + long]))


def test_rows_and_bars(bench: TeacherBench) -> None:
    rows = measure(bench, None, (ALONE, "KL", "KL, LoRA", "MarginMSE", "InfoNCE", "MaxSim"))
    trained = [row for row in rows if row.get("rate")]
    assert [row["method"] for row in trained] == [
        OURS, ALONE, "KL", "KL, LoRA", "MarginMSE", "InfoNCE", "MaxSim"
    ]  # fmt: skip
    assert [row["pairs"] for row in trained] == [288, 288, 288, 288, 288, 0, 288]
    assert trained[-1]["bytes"] > trained[2]["bytes"] == 4 * bench.reranker.config.hidden_size
    assert [row["method"] for row in rows if row not in trained][:1] == ["teacher"]
    assert {"BM25", "label prior"} < {row["method"] for row in rows}
    assert all(row["documents"] == len(bench.task.corpus) for row in rows)
    assert all(row["n"] == 24 and 0 <= row["ndcg@10"]["mean"] <= 1 for row in rows)
    ours = trained[0]["ndcg@10"]
    teacher = next(row for row in rows if row["method"] == "teacher")["ndcg@10"]
    assert ours["kept"]["mean"] == pytest.approx(ours["mean"] / teacher["mean"])
    for row in trained[1:]:
        assert row["ndcg@10"]["ahead"] == pytest.approx(ours["mean"] - row["ndcg@10"]["mean"])
        assert 0 < row["ndcg@10"]["p"] <= 1
    assert [bar["limit"] for bar in bars_of(rows)] == [0.0, 0.97, 0.97]
    assert json.loads(json.dumps(measure(bench, None, ()))) is not None


def test_a_sentence_encoder_is_every_methods_start(
    bench: TeacherBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker, "DEPTH", 5)  # the teacher ranks what the methods found
    monkeypatch.setattr(ranker, "TEACHER_QUERIES", 20)
    encoder = write_sentence_transformer(tmp_path / "tiny", "bert", "mean")
    rows = measure(bench, str(encoder), (ALONE, HARD, "KL"))
    methods = [row["method"] for row in rows]
    assert methods[:6] == ["teacher", OURS, ALONE, "KL", HARD, "as it is"] and "MaxSim" not in methods
    assert all(row["start"] == "tiny" for row in rows)
    assert rows[0]["teacher_n"] == 20 == len(sample_rows(bench.task.split("test"), 20))

    corpora = student_corpora.bars_of(rows)
    assert [bar["limit"] for bar in corpora] == [0.0, 0.0, 0.0, 0.95]  # BM25, hard negatives, KL, the teacher

    monkeypatch.setattr(student_cost, "WIDTHS", (4,))
    cost = student_cost.measure(bench, str(encoder))
    assert [(row["kind"], row["student"]) for row in cost[:4]] == [
        ("query cost", "tiny"), ("query cost", "2 layers"), ("query cost", "1 layers"), ("bill", ALONE)
    ]  # fmt: skip
    assert [row["pairs"] for row in cost[-4:]] == [144, 144, 288, 288]
    assert all(row["ms"] > 0 for row in cost if row["kind"] == "query cost")
    assert len(student_cost.bars_of(cost)) == 3
    monkeypatch.setitem(TITLES, "animals", "Animals")
    for table, found in ((student_tables.student_equal_bill, rows), (student_tables.student_cost, cost)):
        text = table({"rows": found})
        assert "| tiny |" in text or "from tiny" in text
