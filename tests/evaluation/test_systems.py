"""Any model as a ranking system, found by what its folder holds."""

import re
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from benchmarks.opponents import plain_tokenizer
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.evaluation.systems import baselines, load_system, public_encoder
from modeling_rabtriever.tasks.beir import RetrievalTask, Split, load_beir

CORPUS = ["bring the sponge", "bring a lamp to the attic", "call a doctor"]
QUERIES = ["I spilled my drink", "it is dark up here"]


@pytest.fixture
def bi_encoder(reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    reranker.backbone.base_model.save_pretrained(tmp_path / "backbone")
    plain_tokenizer(reranker.processor).save_pretrained(tmp_path / "backbone")
    transformer = Transformer(str(tmp_path / "backbone"))
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="lasttoken")], device="cpu")
    model.save(str(tmp_path / "bi-encoder"))
    return tmp_path / "bi-encoder"


def test_rerankers_students_and_bi_encoders(
    reranker: GenerativeRerankerModel, student: RabtrieverModel, bi_encoder: Path, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    student.save_pretrained(tmp_path / "student")
    found = [load_system(str(path), CORPUS) for path in (tmp_path / "teacher", tmp_path / "student", bi_encoder)]
    assert [system.name for system in found] == ["teacher", "Rabtriever", "bi-encoder"]
    teacher, rabtriever, encoder = (system.score(QUERIES) for system in found)
    torch.testing.assert_close(teacher, reranker.score(QUERIES, CORPUS), atol=1e-5, rtol=0)
    expected = student.similarity(student.encode_query(QUERIES), student.encode_document(CORPUS))
    torch.testing.assert_close(rabtriever, expected, atol=1e-5, rtol=0)
    model = SentenceTransformer(str(bi_encoder), device="cpu")
    torch.testing.assert_close(encoder, model.similarity(model.encode(QUERIES), model.encode(CORPUS)))
    assert [system.vector_bytes for system in found] == [None, 3 * 24 * 4, 3 * 32 * 4]


def test_a_model_by_a_name_of_its_own(student: RabtrieverModel, bi_encoder: Path, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "a=b")
    path = str(tmp_path / "a=b")
    assert load_system(path, CORPUS).name == load_system(f"Rabtriever={path}", CORPUS).name == "Rabtriever"
    assert load_system(f"paper's recipe={path}", CORPUS).name == "paper's recipe"
    with pytest.raises(
        ValueError, match=r"bi-encoder is named teacher but is a SentenceTransformer; accepted: another"
    ):
        load_system(f"teacher={bi_encoder}", CORPUS)


def test_other_models_are_refused(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.backbone.base_model.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"plain is a qwen2 model; accepted: a teacher \(generative_reranker\) or a"):
        load_system(str(tmp_path / "plain"), CORPUS)


def test_a_cached_model_of_the_hub_is_found_offline(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    student.save_pretrained(repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    assert load_system("org/name", CORPUS).score(QUERIES).shape == (2, 3)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model is '.*mistyped'; accepted: a folder that is there, or a Hub id"):
        load_system(str(tmp_path / "mistyped"), CORPUS)


def test_a_public_encoder_that_is_not_here_is_left_out(capsys: pytest.CaptureFixture[str], bi_encoder: Path) -> None:
    assert public_encoder("nobody/nothing", CORPUS) is None
    assert "skipped the baseline nobody/nothing: not on this machine" in capsys.readouterr().out
    system = public_encoder(str(bi_encoder), CORPUS)
    assert system is not None and system.score(QUERIES).shape == (2, 3)


@pytest.mark.parametrize(
    ("queries", "relevant", "why"),
    [
        (["my dog", "my cat"], [{0: 1}, {0: 1}], "relevant documents in training: 1"),
        (["my dog"], [{}], "relevant documents in training: 0"),
        (["dog", "cat", "hen", "cow"], [{0: 1}, {0: 1}, {1: 1}, {1: 1}], "no word is in two training queries \\(.*\\)"),
        (["a", "b", "c", "d"], [{0: 1}, {0: 1}, {1: 1}, {1: 1}], "no word is in two training queries \\(.*\\)"),
    ],
)
def test_a_classifier_that_cannot_be_fitted_is_left_out(
    queries: list[str], relevant: list[dict[int, int]], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Split("train", [f"q{row}" for row in range(len(queries))], queries, relevant)
    task = RetrievalTask("pets", ["a", "b"], CORPUS[:2], {"train": train})
    assert [system.name for system in baselines(task, "train")] == ["label prior", "BM25"]
    said = capsys.readouterr().out
    assert re.fullmatch(f"skipped the baseline TF-IDF \\+ logistic regression: {why}\n", said), said


def test_baselines_are_those_the_task_has_data_for(beir_folder: Path) -> None:
    task = load_beir(beir_folder)
    assert [system.name for system in baselines(task, "train")] == [
        "label prior", "BM25", "TF-IDF + logistic regression"
    ]  # fmt: skip
    without = RetrievalTask(task.name, task.corpus_ids, task.corpus, {"test": task.split("test")})
    assert [system.name for system in baselines(without, "train")] == ["BM25"]
    once = RetrievalTask(task.name, task.corpus_ids, task.corpus, {"train": task.split("train").take(range(12))})
    assert [system.name for system in baselines(once, "train")] == ["label prior", "BM25"]
