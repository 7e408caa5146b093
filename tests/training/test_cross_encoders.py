"""Teachers that only score pairs: a cross-encoder of sentence-transformers, distilled by the stage."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.cross_encoders import cross_encoder
from modeling_rabtriever.export import export_cross_encoder
from modeling_rabtriever.stages import distill
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir

PROMPT = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


@pytest.fixture
def exported(reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    """The reranker as a cross-encoder."""
    export_cross_encoder(reranker, tmp_path / "cross-encoder")
    return tmp_path / "cross-encoder"


@pytest.fixture
def settings(beir_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A short run. Nothing is drawn, and rounding stays rounding, which Adam would blow up to whole steps."""
    return {
        "data": beir_folder, "output_dir": tmp_path / "run", "embedding_dim": 32, "candidates": 12, "rounds": 0,
        "train_encoder": "none", "temperature": 0.5, "per_device_train_batch_size": 12, "max_steps": 30,
        "learning_rate": 5e-3, "optim": "sgd", "use_cpu": True, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip


def run(**settings: Any) -> Path:
    return distill.main([item for name, value in settings.items() for item in (f"--{name}", str(value))])


def test_scores_are_the_models_raw_logits(
    task: RetrievalTask, exported: Path, reranker: GenerativeRerankerModel
) -> None:
    queries = task.split("train").queries
    scorer = cross_encoder(str(exported), queries, task.corpus, "cpu")
    rows, documents = torch.tensor([0, 7, 30]), torch.tensor([3, 3, 11])
    pairs = [(queries[q], task.corpus[d]) for q, d in zip(rows.tolist(), documents.tolist(), strict=True)]
    torch.testing.assert_close(
        scorer.score_pairs(rows, documents)["logits"], reranker.predict(pairs), atol=1e-5, rtol=1e-5
    )


def test_a_cross_encoder_teaches_what_its_reranker_does(
    task: RetrievalTask, settings: dict[str, Any], exported: Path, tmp_path: Path, reranker: GenerativeRerankerModel
) -> None:
    """The same model as a cross-encoder and as a reranker: the same scores, so the same student."""
    plain = tmp_path / "plain"  # what the cross-encoder's student stands on
    reranker.backbone.save_pretrained(plain)
    reranker.processor.tokenizer.save_pretrained(plain)
    reranker.save_pretrained(tmp_path / "reranker")
    folders = (
        run(**settings, **PROMPT, cross_encoder=exported, model_name_or_path=plain),
        run(**{**settings, "output_dir": tmp_path / "own"}, teacher=tmp_path / "reranker"),
        run(**{**settings, "output_dir": tmp_path / "both"}, cross_encoder=exported, teacher=tmp_path / "reranker"),
    )
    vectors = [AutoModel.from_pretrained(folder).encode_document(task.corpus) for folder in folders]
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(vectors[2], vectors[1], atol=1e-3, rtol=1e-3)


def test_a_pickled_cross_encoder_is_not_read(task: RetrievalTask, exported: Path) -> None:
    (weights,) = exported.glob("*.safetensors")
    torch.save(load_file(weights), exported / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        cross_encoder(str(exported), task.split("train").queries, task.corpus, "cpu")


def test_several_numbers_per_pair_are_no_score(task: RetrievalTask, exported: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(exported, num_labels=3, ignore_mismatched_sizes=True)
    model.save_pretrained(exported)
    with pytest.raises(ValueError, match="gives 3 numbers per pair; accepted: a cross-encoder with one"):
        cross_encoder(str(exported), task.split("train").queries, task.corpus, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name_or_path": "plain"}, "model_name_or_path is 'plain'; accepted: only with cross_encoder"),
        (
            {"model_name_or_path": "plain", "cross_encoder": "x", "teacher": "y"},
            "model_name_or_path is 'plain'; accepted: only with cross_encoder and without teacher",
        ),
        ({"instruction": "Why?"}, "instruction given, but the student uses the teacher's prompt"),
    ],
)
def test_sources_that_exclude_each_other_are_refused(
    settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(**settings, **changes)
    assert not settings["output_dir"].exists()
