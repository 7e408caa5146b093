"""The whole path on a tiny task: train, distil, save, evaluate, card; skip, resume after a kill, refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.stages import pipeline, quickstart, train_reranker

ROOT = Path(__file__).parents[2]


def test_pipeline_from_folder_to_card(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.main(["--config", str(recipe)])
    run = tmp_path / "run"
    teacher = AutoModel.from_pretrained(run / "teacher" / "model")
    student = AutoModel.from_pretrained(run / "student" / "model")
    assert isinstance(teacher, GenerativeRerankerModel) and isinstance(student, RabtrieverModel)
    assert student.config.embedding_dim == 16
    torch.testing.assert_close(student.backbone.state_dict(), teacher.backbone.base_model.state_dict())

    report = json.loads((run / "evaluation" / "test.json").read_text())
    assert report["n"] == 24 and set(report["systems"]) >= {"label prior", "BM25", "teacher", "Rabtriever"}
    assert "| Rabtriever |" in (run / "evaluation" / "report.md").read_text()
    shown = capsys.readouterr().out
    assert "is below BM25's, 100.0" in shown and "in the corpus (12 queries, all 12 documents) the teacher has" in shown
    made = {"train_reranker": run / "teacher/model", "distill": run / "student/model", "evaluate": run / "evaluation"}
    assert shown.endswith("\n".join(["== done", *(f"{stage}: {path}" for stage, path in made.items())]) + "\n")
    log = json.loads((run / "teacher" / "log.json").read_text())
    assert [record["step"] for record in log if "eval_corpus_success@1" in record] == [10, 20]
    found = report["faithfulness"]
    assert -1 <= found["scores"]["kendall_tau"] <= 1 and found["scores"]["best_rank_k"]["k"] == 16
    assert "Kendall's tau" in (run / "evaluation" / "report.md").read_text()
    for stage in ("teacher", "student"):
        card = ModelCard.load(run / stage / "model" / "README.md")
        system = "teacher" if stage == "teacher" else "Rabtriever"
        results = {result.metric_type: result.metric_value for result in card.data.eval_results}
        expected = report["systems"][system]["success@1"]["mean"]
        assert results["success@1"] == pytest.approx(expected, abs=1e-4)
        assert "| BM25 |" in card.text and "2604.23336" in card.text
        assert "**Warning.** The teacher's MRR@10, " in card.text  # BM25 finds every animal
        assert not (run / stage / "checkpoints").exists()

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    capsys.readouterr()
    pipeline.main(["--config", str(recipe)])
    assert capsys.readouterr().out.count("already done") == 3
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before

    with pytest.raises(ValueError, match=r"embedding_dim \(16 there, 8 now\)"):
        pipeline.main(["--config", str(recipe), "--distill.embedding_dim", "8"])
    pipeline.main(["--config", str(recipe), "--distill.embedding_dim", "8", "--overwrite", "true"])
    assert AutoModel.from_pretrained(run / "student" / "model").config.embedding_dim == 8


@pytest.mark.slow
def test_same_seed_same_models_and_numbers(recipe: Path, tmp_path: Path) -> None:
    weights, reports = [], []
    for name in ("a", "b"):
        pipeline.main(["--config", str(recipe), "--output_dir", str(tmp_path / name)])
        weights.append(
            [
                AutoModel.from_pretrained(tmp_path / name / stage / "model").state_dict()
                for stage in ("teacher", "student")
            ]
        )
        report = json.loads((tmp_path / name / "evaluation" / "test.json").read_text())
        for system in report["systems"].values():
            system.pop("milliseconds", None)
        reports.append(report)
    for first, second in zip(*weights, strict=True):
        torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_as_if_it_had_not_been(recipe: Path, tmp_path: Path) -> None:
    flags = ["--config", str(recipe), "--max_steps", "80"]  # long enough to be killed in
    train_reranker.main([*flags, "--output_dir", str(tmp_path / "whole")])
    folder = tmp_path / "killed" / "teacher"
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train_reranker", *flags, "--output_dir", str(tmp_path / "killed")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not json.loads((folder / "stage.json").read_text())["done"]
    resumed = train_reranker.main([*flags, "--output_dir", str(tmp_path / "killed")])
    whole = AutoModel.from_pretrained(tmp_path / "whole" / "teacher" / "model")
    torch.testing.assert_close(
        AutoModel.from_pretrained(resumed).state_dict(), whole.state_dict(), atol=1e-5, rtol=1e-4
    )
    steps = [record["step"] for record in json.loads((folder / "log.json").read_text()) if "loss" in record]
    assert steps == list(range(5, 81, 5))


def test_pretrained_backbone_from_a_folder(recipe: Path, reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.backbone.save_pretrained(tmp_path / "plain")
    reranker.processor.tokenizer.save_pretrained(tmp_path / "plain")
    command = ["--config", str(recipe), "--model_name_or_path", str(tmp_path / "plain"), "--max_steps", "1"]
    with pytest.raises(ValueError, match="true_answer 'yes yes' is .* tokens of this tokenizer"):
        train_reranker.main([*command, "--true_answer", "yes yes"])
    folder = train_reranker.main([*command, "--learning_rate", "0", "--overwrite", "true"])
    trained = AutoModel.from_pretrained(folder)
    torch.testing.assert_close(trained.backbone.state_dict(), reranker.backbone.state_dict())
    record = json.loads((folder.parent / "stage.json").read_text())
    assert record["done"] and record["pairs"] == 16


def test_stages_out_of_order_and_unknown_keys_are_refused(recipe: Path, tmp_path: Path) -> None:
    from modeling_rabtriever.stages import distill, evaluate

    with pytest.raises(ValueError, match=r"run python -m training.train_reranker first, or pass --teacher"):
        distill.main(["--config", str(recipe)])
    with pytest.raises(ValueError, match="train it first, or pass --model"):
        evaluate.main(["--config", str(recipe)])
    with pytest.raises(ValueError, match="--config is missing"):
        pipeline.main(["--data", "x"])
    for flags in (["--teach.max_steps", "1"], ["--teach.max_steps=1"]):
        with pytest.raises(ValueError, match="--teach.max_steps names no stage; accepted"):
            pipeline.main(["--config", str(recipe), *flags])
    content = yaml.safe_load(recipe.read_text())
    content["evaluate"]["split"] = ["test"]  # a typing error in the last stage stops before the first
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="unknown keys for evaluate: split"):
        pipeline.main(["--config", str(recipe)])
    assert not (tmp_path / "run").exists()


def test_flags_may_hold_their_values() -> None:
    found = pipeline.by_stage(
        ["--data=a.b/v1.2", "--distill.learning_rate=0.5", "--seed", "1"], ["distill", "evaluate"]
    )
    assert found == {
        "distill": ["--data=a.b/v1.2", "--learning_rate=0.5", "--seed", "1"],
        "evaluate": ["--data=a.b/v1.2", "--seed", "1"],
    }


@pytest.mark.parametrize("flags", [["--output_dir=mine", "--seed", "1"], ["--seed", "1", "--output_dir", "mine"]])
def test_the_quickstart_works_in_the_folder_that_is_named(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def stop(flags: list[str]) -> None:
        given.extend(flags)
        raise ValueError("stopped")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "main", stop)
    with pytest.raises(ValueError, match="stopped"):
        quickstart.main(flags)
    assert given[4:] == ["--output_dir", "mine", "--seed", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
