"""Evaluation of any model, or of rankings somebody else made."""

import json
from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.evaluation import candidates
from modeling_rabtriever.evaluation.metrics import query_metrics, rank_documents
from modeling_rabtriever.evaluation.runs import read_run, write_run
from modeling_rabtriever.evaluation.splits import rank_split
from modeling_rabtriever.evaluation.systems import System
from modeling_rabtriever.stages import evaluate as evaluate_stage
from modeling_rabtriever.tasks.beir import RetrievalTask, Split, load_beir


def call(beir_folder: Path, output: Path, *flags: str) -> Path:
    common = ["--task", str(beir_folder), "--output_dir", str(output), "--sentence_encoder", "nobody/nothing"]
    return evaluate_stage.main([*common, *flags])


def test_a_student_alone(beir_folder: Path, student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    folder = call(beir_folder, tmp_path / "out", "--model", str(tmp_path / "student"))
    report = json.loads((folder / "test.json").read_text())
    names = ["random", "label prior", "BM25", "TF-IDF + logistic regression", "Rabtriever"]
    assert list(report["systems"]) == names and "retention" not in report
    assert report["systems"]["random"]["success@1"]["mean"] == pytest.approx(1 / 12)
    assert report["systems"]["BM25"]["success@1"]["mean"] == 1.0
    assert report["systems"]["Rabtriever"]["vector_bytes"] == 12 * 24 * 4
    assert report["documents"] == 12 and report["first_stage"] is None

    task = load_beir(beir_folder)
    split = task.split("test")
    run = read_run(folder / "test-Rabtriever.trec", split.query_ids, task.corpus_ids)
    values = query_metrics(run, split.relevant)["mrr@10"]
    assert values.mean() == pytest.approx(report["systems"]["Rabtriever"]["mrr@10"]["mean"])
    lines = [json.loads(line) for line in (folder / "test-queries.jsonl").read_text().splitlines()]
    assert [line["Rabtriever"]["mrr@10"] for line in lines] == values.tolist()
    assert {line["_id"] for line in lines} == set(split.query_ids)
    for name in ("test-recall.png", "test-scores.png", "report.md"):
        assert (folder / name).stat().st_size > 0
    assert not (tmp_path / "student" / "README.md").exists()  # a card is for the run's own models


def test_models_that_were_saved_from_python(
    beir_folder: Path,
    reranker: GenerativeRerankerModel,
    student: RabtrieverModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reranker.save_pretrained(tmp_path / "teacher" / "model")
    student.save_pretrained(tmp_path / "student" / "model")
    folder = call(beir_folder, tmp_path)
    assert {"teacher", "Rabtriever"} <= json.loads((folder / "test.json").read_text())["systems"].keys()
    assert "no cards: " in capsys.readouterr().out
    call(beir_folder, tmp_path)
    assert "already done" in capsys.readouterr().out


def test_the_same_again_is_the_same(beir_folder: Path, student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    reports = []
    for name in "ab":
        report = json.loads(
            (call(beir_folder, tmp_path / name, "--model", str(tmp_path / "student")) / "test.json").read_text()
        )
        for system in report["systems"].values():
            system.pop("milliseconds", None)
        reports.append(report)
    assert reports[0] == reports[1]


def test_somebody_elses_rankings(beir_folder: Path, tmp_path: Path) -> None:
    task = load_beir(beir_folder)
    lines = []
    for query_id, relevant in zip(task.split("dev").query_ids, task.split("dev").relevant, strict=True):
        ranked = [*relevant, *(row for row in range(12) if row not in relevant)]
        lines += [f"{query_id} Q0 d{row} {rank} {-rank} x\n" for rank, row in enumerate(ranked, start=1)]
    path = tmp_path / "oracle.trec"
    path.write_text("".join(lines))
    folder = call(beir_folder, tmp_path / "out", "--run_files", str(path), "--splits", "dev")
    report = json.loads((folder / "dev.json").read_text())
    assert report["systems"]["oracle"]["success@1"]["mean"] == 1.0
    assert "| oracle | **100.0" in (folder / "report.md").read_text()

    path.write_text("".join(lines[:-12]))  # without the last query
    with pytest.raises(ValueError, match=r"lacks 1 of 12 queries"):
        call(beir_folder, tmp_path / "broken", "--run_files", str(path), "--splits", "dev")
    with pytest.raises(ValueError, match=r"accepted: one split"):
        call(beir_folder, tmp_path / "two", "--run_files", str(path), "--splits", "dev", "test")


def test_broken_systems_are_not_averaged_over(beir_folder: Path) -> None:
    task = load_beir(beir_folder)
    split = task.split("dev")
    nan = torch.zeros(12, 12)
    nan[3, 3] = torch.nan
    for scores, message in ((nan, "scores hold NaN"), (torch.zeros(11, 12), r"gave scores of shape \(11, 12\)")):
        systems = [System("broken", lambda _, found=scores: found)]
        with pytest.raises(ValueError, match=message):
            rank_split(task, split, systems)
    with pytest.raises(ValueError, match="different names"):
        rank_split(task, split, [System("a", lambda _: torch.zeros(12, 12))] * 2)


def test_candidates_of_a_first_stage(
    beir_folder: Path, reranker: GenerativeRerankerModel, student: RabtrieverModel, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    student.save_pretrained(tmp_path / "student")
    models = ("--model", str(tmp_path / "teacher"), str(tmp_path / "student"))
    folder = call(beir_folder, tmp_path / "out", *models, "--candidates", "3")
    report = json.loads((folder / "test.json").read_text())
    assert report["first_stage"] == {"system": "BM25", "documents": 3} and "calibration" not in report
    assert "Only the first 3 documents of BM25 were ranked." in (folder / "report.md").read_text()
    # Every answer is BM25's first, so each system finds it among its three.
    assert {found["success@3"]["mean"] for found in report["systems"].values()} == {1.0}
    assert report["systems"]["random"]["success@1"]["mean"] == pytest.approx(1 / 3)
    assert set(report["systems"]) - set(report["whole"]["systems"]) == {"teacher"}
    task = load_beir(beir_folder)
    split = task.split("test")
    for part, name, model in (("whole", "Rabtriever", student), ("sample", "teacher", reranker)):
        scores = model.score(split.queries, task.corpus) if name == "teacher" else _similarities(model, split, task)
        expected = query_metrics(rank_documents(scores, 10), split.relevant)["mrr@10"].mean()
        assert report[part]["systems"][name]["mrr@10"]["mean"] == pytest.approx(expected)
    assert report["sample"]["documents"] == 12 and report["sample"]["n"] == 24
    text = (folder / "report.md").read_text()
    assert "Among all 12 documents: Rabtriever R@1" in text
    assert "With 24 queries and all 12 documents: teacher R@1" in text
    bm25, teacher = (
        read_run(folder / f"test-{name}.trec", split.query_ids, task.corpus_ids) for name in ("BM25", "teacher")
    )
    for query, first, ranked in zip(split.queries, bm25, teacher, strict=True):
        scores = reranker.predict([(query, task.corpus[row]) for row in first]).tolist()
        assert ranked == [row for _, row in sorted(zip(scores, first, strict=True), reverse=True)]
    other = tmp_path / "other.trec"  # ranks the corpus; the candidates are all that counts
    order = [[*range(11, -1, -1)] for _ in split.queries]
    write_run(other, "other", split.query_ids, task.corpus_ids, order, -torch.arange(12.0).flip(0).repeat(24, 1))
    folder = call(beir_folder, tmp_path / "files", "--run_files", str(other), "--candidates", "3")
    report = json.loads((folder / "test.json").read_text())
    assert report["systems"]["other"]["success@3"]["mean"] == 1.0
    with pytest.raises(ValueError, match="candidates is 0; accepted: 1 or more"):
        call(beir_folder, tmp_path / "none", *models, "--candidates", "0")


def _similarities(student: RabtrieverModel, split: Split, task: RetrievalTask) -> torch.Tensor:
    return student.similarity(student.encode_query(split.queries), student.encode_document(task.corpus))


def test_a_teacher_too_slow_for_the_corpus_is_said_to_be(
    beir_folder: Path, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "SAMPLE_SECONDS", 0)
    reranker.save_pretrained(tmp_path / "teacher")
    folder = call(beir_folder, tmp_path / "out", "--model", str(tmp_path / "teacher"), "--candidates", "3")
    report = json.loads((folder / "test.json").read_text())
    assert "systems" not in report["sample"] and report["sample"]["minutes"] >= 1
    assert "The teacher was not evaluated on the corpus: 24 queries and all 12" in (folder / "report.md").read_text()


def test_as_many_candidates_as_documents_are_the_corpus(
    beir_folder: Path, reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    folder = call(beir_folder, tmp_path / "out", "--model", str(tmp_path / "teacher"), "--candidates", "12")
    report = json.loads((folder / "test.json").read_text())
    assert report["first_stage"] is None and "calibration" in report
    assert "is below BM25's, 100.0" in (folder / "report.md").read_text()  # an untrained teacher


def test_ids_that_no_run_file_can_hold_are_refused_before_anything_is_ranked(beir_folder: Path, tmp_path: Path) -> None:
    qrels = beir_folder / "qrels" / "test.tsv"
    lines = qrels.read_text().splitlines()
    query = lines[1].split("\t")[0]
    for path in (qrels, beir_folder / "queries.jsonl"):
        path.write_text(path.read_text().replace(query, "a b"))
    with pytest.raises(
        ValueError, match="the id 'a b' cannot be used in a run file; accepted: ids without white space"
    ):
        call(beir_folder, tmp_path / "out", "--model", "nobody/nothing")
