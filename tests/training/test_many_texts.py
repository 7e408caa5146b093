"""Of a large task, training reads only what its steps come to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation import sides, token_ids
from modeling_rabtriever.distillation.cache_fingerprints import fingerprints
from modeling_rabtriever.distillation.candidates import first_rows
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.sides import MovingSide
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.token_ids import TokenIdsOf
from modeling_rabtriever.distillation.training import fresh_student, make_trainer, reranker_scores, trained_rows
from modeling_rabtriever.reranking.pairs import pair_dataset
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.conftest import DOCUMENTS, QUERIES


def config(folder: Path, **settings: Any) -> RabtrieverDistillationConfig:
    steps: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 5, "rounds": 1, "candidates": 4}
    quiet: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    return RabtrieverDistillationConfig(str(folder), **{**quiet, **steps, **settings})


def test_the_steps_queries_are_a_sample_by_seed(tmp_path: Path) -> None:
    rows = trained_rows(36, config(tmp_path))
    assert len(rows) == 10 and [*rows] == sorted({*rows} & {*range(36)})
    assert trained_rows(36, config(tmp_path)) == rows != trained_rows(36, config(tmp_path, seed=7))
    assert len(trained_rows(36, config(tmp_path, gradient_accumulation_steps=2))) == 20
    for settings in ({"max_steps": 8}, {"max_steps": -1, "num_train_epochs": 1}):
        assert trained_rows(36, config(tmp_path, **settings)) == range(36)


@pytest.mark.parametrize("how", ["none", "full"])
def test_only_the_steps_queries_are_judged(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, how: str
) -> None:
    task, settings = load_beir(beir_folder), config(tmp_path, train_encoder=how, label_share=0.5)
    train = task.split("train")
    teacher = reranker_scores(reranker, task, train, settings, tmp_path / "states")
    student = fresh_student(reranker, StudentArguments(embedding_dim=16), settings)
    trainer = make_trainer(student, teacher, task, train, None, settings)
    trainer.train()
    rows = trained_rows(len(train), settings)
    asked, judged = teacher.pairs()
    assert {*asked.tolist()} == {*rows} and len(asked) == trainer.teacher_pairs == 40
    for row, candidates in zip(rows, trainer.candidates.tolist(), strict=True):
        assert train.relevant[row].keys() <= {*candidates} == {*judged[asked == row].tolist()}


def test_fixed_candidates_are_those_of_the_queries_read(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    task, settings = load_beir(beir_folder), config(tmp_path)
    train = task.split("train")
    given = torch.arange(len(train))[:, None] % 12
    teacher = reranker_scores(reranker, task, train, settings, tmp_path / "states")
    student = fresh_student(reranker, StudentArguments(embedding_dim=16), settings)
    trainer = make_trainer(student, teacher, task, train, None, settings, given)
    trainer.train()
    assert trainer.candidates.equal(given[torch.tensor(trained_rows(len(train), settings))])


def test_token_ids_are_right_while_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_ids, "KEPT", 2)
    texts = ["a", "bb", "ccc", "dddd"]
    other = [[2, 3], [3, 2]]  # what other threads ask while this one tokenises

    def read(asked: list[str]) -> list[list[int]]:
        if other:
            rows = other.pop()
            assert ids.of(rows) == [[len(texts[row])] for row in rows]
        return [[len(text)] for text in asked]

    ids = TokenIdsOf(read, texts)
    assert ids.of([0, 1]) == [[1], [2]]
    assert ids.of([1, 2, 0]) == [[2], [3], [1]]


def test_token_ids_are_kept_only_for_the_last_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_ids, "KEPT", 3)
    read: list[str] = []
    ids = TokenIdsOf(lambda texts: read.extend(texts) or [[len(text)] for text in texts], ["a", "bb", "ccc", "dddd"])
    assert ids.of([1, 0, 1]) == [[2], [1], [2]] and read == ["bb", "a"]
    assert ids.of([0, 3]) == [[1], [4]] and read == ["bb", "a", "dddd"]  # what is asked for again stays
    assert ids.of([1]) == [[2]] and len(ids) == 4


def test_all_texts_are_encoded_block_by_block(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = fresh_student(reranker, StudentArguments(embedding_dim=16), config(tmp_path))
    whole = MovingSide(student, "document", DOCUMENTS).mapped(student.predictor.encode_document)
    for module in (sides, token_ids):
        monkeypatch.setattr(module, "KEPT", 3)
    side = MovingSide(student, "document", DOCUMENTS)
    torch.testing.assert_close(side.mapped(student.predictor.encode_document), whole)
    torch.testing.assert_close(side.sample(2), MovingSide(student, "document", DOCUMENTS[::2]).sample(9))


def test_first_rows_of_equal_texts() -> None:
    assert first_rows(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 3, 1]


def test_the_fingerprint_of_texts_is_that_of_their_lists(reranker: GenerativeRerankerModel) -> None:
    long = [f"text {row} é" for row in range(20_000)]
    for texts in ((), (DOCUMENTS,), (QUERIES, long), ([], DOCUMENTS)):
        expected = hashlib.sha256(json.dumps([list(group) for group in texts]).encode()).hexdigest()[:16]
        assert fingerprints(reranker, *texts)["texts"] == expected


def test_pairs_tokenise_only_their_own_texts(
    reranker: GenerativeRerankerModel, beir_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: RetrievalTask = load_beir(beir_folder)
    read: list[int] = []
    tokenise = type(reranker.processor).document_ids
    monkeypatch.setattr(
        type(reranker.processor), "document_ids", lambda self, texts: read.append(len(texts)) or tokenise(self, texts)
    )
    rows = pair_dataset([(3, [3, 5]), (9, [9, 5])], task.split("train"), task.corpus, reranker.processor)
    assert len(rows) == 4 and rows[3]["prefix_length"] > 0 and read == [3]
