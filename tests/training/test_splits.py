"""Tasks that lack a split: refused before anything is trained where it is needed, else trained without."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.stages import (
    distill,
    evaluate,
    generate_queries,
    pipeline,
    pretrain,
    train_reranker,
)
from modeling_rabtriever.tasks.beir import load_beir

STAGES = {
    "pretrain": pretrain,
    "train_reranker": train_reranker,
    "generate_queries": generate_queries,
    "distill": distill,
}


@pytest.fixture
def recipe(beir_folder: Path, tmp_path: Path, reranker: GenerativeRerankerModel) -> Path:
    """Every stage for two steps, watched at each."""
    reranker.backbone.save_pretrained(tmp_path / "plain")
    reranker.processor.tokenizer.save_pretrained(tmp_path / "plain")
    plain = {"model_name_or_path": str(tmp_path / "plain")}
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    watched = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1, "use_cpu": True}
    watched |= {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "save_strategy": "no"}
    groups = {"negatives_per_positive": 3, "dev_groups": 4}
    content = {
        "data": str(beir_folder),
        "output_dir": str(tmp_path / "run"),
        "pretrain": {**plain, **prompt, **watched},
        "train_reranker": {**prompt, **watched, **groups},
        "distill": {"embedding_dim": 8, "candidates": 4, "rounds": 0, **watched},
        "evaluate": {"splits": ["test"], "sentence_encoder": "nobody/nothing"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def without(beir_folder: Path) -> Callable[..., None]:
    def remove(*splits: str) -> None:
        for split in splits:
            (beir_folder / "qrels" / f"{split}.tsv").unlink()

    return remove


def test_without_dev_all_stages_train_unwatched(
    recipe: Path, without: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without("dev")
    pipeline.main(["--config", str(recipe)])
    said = "animals has no split 'dev' (it has: test, train): no evaluations during training\n"
    assert capsys.readouterr().out.count(said) == 3
    for stage in ("backbone", "teacher", "student"):
        log = json.loads((tmp_path / "run" / stage / "log.json").read_text())
        assert any("loss" in record for record in log)
        assert not any(name.startswith("eval_") for record in log for name in record)
    assert json.loads((tmp_path / "run" / "evaluation" / "test.json").read_text())["n"] == 24


@pytest.mark.parametrize(
    ("gone", "flags", "message"),
    [
        ("dev", ["--dev_split", "dev"], "dev_split is 'dev', which animals lacks; accepted: test, train"),
        ("train", [], "train_split is 'train', which animals lacks; accepted: dev, test"),
    ],
)
def test_a_split_that_is_needed_or_named_is_missed_at_once(
    recipe: Path, without: Callable[..., None], tmp_path: Path, gone: str, flags: list[str], message: str
) -> None:
    without(gone)
    command = ["--config", str(recipe), *flags]
    for name, stage in STAGES.items():
        if name == "generate_queries" and gone == "dev":
            continue  # it watches nothing
        started = name in ("train_reranker", "generate_queries")
        own = ["--model_name_or_path", str(tmp_path / "plain")] if started else []
        with pytest.raises(ValueError, match=message):
            stage.main([*command, *own])
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=message):
        pipeline.main(command)
    assert not (tmp_path / "run").exists()


def test_a_missing_evaluation_split_stops_the_pipeline_before_its_first_stage(
    recipe: Path, without: Callable[..., None], tmp_path: Path
) -> None:
    without("test")
    with pytest.raises(ValueError, match="splits is 'test', which animals lacks; accepted: dev, train"):
        pipeline.main(["--config", str(recipe)])
    assert not (tmp_path / "run").exists()
    called = []
    with pytest.MonkeyPatch.context() as patch:
        for name, module in pipeline._STAGES.items():
            patch.setattr(module, "main", lambda _, name=name: called.append(name) or recipe)
        pipeline.main(["--config", str(recipe)], last="distill")  # which never asks for it
    assert called == ["pretrain", "train_reranker", "distill"]


def test_the_best_model_cannot_be_kept_unwatched(recipe: Path, without: Callable[..., None], tmp_path: Path) -> None:
    without("dev")
    best = ["--load_best_model_at_end", "true", "--save_strategy", "steps", "--save_steps", "1"]
    with pytest.raises(ValueError, match="load_best_model_at_end is true, but animals has no split 'dev'; accepted"):
        pretrain.main(["--config", str(recipe), *best])


def test_a_folder_with_test_alone_is_evaluated(beir_folder: Path, without: Callable[..., None], tmp_path: Path) -> None:
    split, path = load_beir(beir_folder).split("test"), tmp_path / "own.trec"
    without("dev", "train")
    path.write_text("".join(f"{query} Q0 d{row % 12} 1 1.5 own\n" for row, query in enumerate(split.query_ids)))
    flags = ["--data", str(beir_folder), "--output_dir", str(tmp_path / "out"), "--sentence_encoder", "nobody/nothing"]
    folder = evaluate.main([*flags, "--run_files", str(path)])
    report = json.loads((folder / "test.json").read_text())
    assert set(report["systems"]) == {"random", "BM25", "own"} and report["systems"]["own"]["success@1"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--splits", "dev", "test2"], "task animals has no split 'test2'; accepted: dev, test, train"),
        (["--max_queries", "0"], "max_queries is 0; accepted: 1 or more, or null for all"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_before_models_are_read(
    beir_folder: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    command = ["--data", str(beir_folder), "--output_dir", str(tmp_path / "out"), "--model", "nobody/nothing"]
    with pytest.raises(ValueError, match=message):
        evaluate.main([*command, *flags])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_reads_its_data_again_as_it_did(
    recipe: Path, beir_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "blank", "text": " "}\n')
    with (beir_folder / "qrels" / "train.tsv").open("a") as file:
        file.write("train-find-0\tblank\t1\n")
    with pytest.raises(ValueError, match="corpus.jsonl line 13: the document 'blank' has no text"):
        pipeline.main(["--config", str(recipe)])
    assert not (tmp_path / "run").exists()
    pipeline.main(["--config", str(recipe), "--skip_bad", "true"])
    said = "animals: left out bad lines of the corpus (1), judgements of absent documents or queries (1)\n"
    assert capsys.readouterr().out.count(said) == 6  # the check, four stages, the cards
    assert "12 documents" in (tmp_path / "run" / "teacher" / "model" / "README.md").read_text()
