"""A served teacher under evaluation and in a pipeline: the local one's report, each pair asked once, no training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.stages import distill, evaluate, pipeline
from modeling_rabtriever.tasks.beir import load_beir
from tests.served.completion_server import CompletionServer
from tests.training.conftest import flags


@pytest.fixture
def evaluation(served_settings: dict[str, Any], reranker: GenerativeRerankerModel) -> dict[str, Any]:
    """Settings of an evaluation; the run has no student, and the local teacher is evaluated as a model."""
    names = ("data", "output_dir", "teacher", "model_name_or_path")
    local = served_settings["model_name_or_path"]
    return {name: served_settings[name] for name in names} | {"sentence_encoder": "null", "model": f"local={local}"}


def asked_pairs(server: CompletionServer, processor: RabtrieverProcessor, settings: dict[str, Any]) -> int:
    """How many pairs of the test split the server was asked; fails if it was asked one twice."""
    task = load_beir(settings["data"])
    prefixes, suffixes = processor.document_ids(task.corpus), processor.query_ids(task.split("test").queries)
    wanted = {tuple(prefix + suffix) for prefix in prefixes for suffix in suffixes}
    found = [prompt for prompt in server.prompts if prompt in wanted]
    assert len(found) == len(set(found))
    return len(found)


def test_its_report_is_the_local_teachers_and_what_was_answered_is_kept(
    server: CompletionServer, evaluation: dict[str, Any], reranker: GenerativeRerankerModel,
    serve: Callable[..., CompletionServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.fail(503, times=999, after=5)
    assert cli.main(["evaluate", *flags(**evaluation)]) == 2
    said = capsys.readouterr()
    assert "the teacher reads 144 pairs (12 queries x 12 documents), about" in said.out
    assert "gave no answer in 8 tries (status 503" in said.err and "scored pairs are kept" in said.err
    moved = serve(reranker)
    moved.top = 400
    folder = evaluate.main(flags(**{**evaluation, "teacher": moved.url}))
    report = json.loads((folder / "test.json").read_text())["systems"]
    assert report["teacher"]["success@1"] == report["local"]["success@1"]
    assert "milliseconds" not in report["teacher"] and report["local"]["milliseconds"] > 0
    counts = [asked_pairs(one, reranker.processor, evaluation) for one in (server, moved)]
    assert sum(counts) == 144 and min(counts) > 0
    record = (folder / "stage.json").read_text()
    assert '"teacher": "served"' in record and moved.url not in record
    moved.close()
    evaluate.main(flags(**evaluation))
    assert "already done" in capsys.readouterr().out


def test_only_candidates_are_asked(
    server: CompletionServer, evaluation: dict[str, Any], reranker: GenerativeRerankerModel,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = evaluate.main(flags(**evaluation, candidates=3))
    assert "the teacher reads 36 pairs (12 queries x 3 documents)" in capsys.readouterr().out
    assert asked_pairs(server, reranker.processor, evaluation) == 36
    more = {"candidates": 2, "max_queries": 5, "overwrite": True}  # pairs that are known
    evaluate.main(flags(**evaluation, **more))
    assert "the teacher reads 10 pairs (5 queries x 2 documents)" in capsys.readouterr().out
    assert asked_pairs(server, reranker.processor, evaluation) == 36
    folder = evaluate.main(flags(**evaluation, candidates=3, overwrite=True))
    report = json.loads((folder / "test.json").read_text())
    assert report["systems"]["teacher"]["success@1"] == report["systems"]["local"]["success@1"]
    assert "local" in report["sample"]["systems"] and "teacher" not in report["sample"]["systems"]


def test_a_pipeline_trains_no_teacher_and_asks_the_server_in_both_stages(
    server: CompletionServer, served_settings: dict[str, Any], reranker: GenerativeRerankerModel, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shared = ("data", "output_dir")
    content: dict[str, Any] = {name: str(served_settings.pop(name)) for name in shared}
    own = {name: str(value) if isinstance(value, Path) else value for name, value in served_settings.items()}
    content |= {"pretrain": {"max_steps": 1}, "train_reranker": {"max_steps": 1}, "distill": own}
    content |= {"evaluate": {"sentence_encoder": None}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    pipeline.main(["--config", str(recipe), "--distill.dry_run", "true"])
    assert "the teacher reads 216 pairs" in capsys.readouterr().out and not server.requests
    pipeline.main(["--config", str(recipe)])
    run = Path(content["output_dir"])
    shown = {path.name for path in run.iterdir() if not path.name.endswith(".lock")}
    assert shown == {"student", "states", "evaluation"}
    report = json.loads((run / "evaluation" / "test.json").read_text())
    assert {"teacher", "Rabtriever"} <= report["systems"].keys() and "faithfulness" in report
    assert asked_pairs(server, reranker.processor, content) == 144
    server.close()
    capsys.readouterr()
    pipeline.main(["--config", str(recipe)])
    assert capsys.readouterr().out.count("already done") == 2

    # The student's folder holds the whole prompt of its teacher.
    prompt = RabtrieverProcessor.from_pretrained(run / "student" / distill.PROMPT)
    texts = ["bring the lamp"]
    assert prompt.document_ids(texts) + prompt.query_ids(texts) == (
        reranker.processor.document_ids(texts) + reranker.processor.query_ids(texts)
    )
    assert (prompt.true_token_id, prompt.false_token_id) == (
        reranker.processor.true_token_id, reranker.processor.false_token_id,
    )  # fmt: skip


def test_a_pipeline_evaluates_what_it_is_told(
    server: CompletionServer, served_settings: dict[str, Any], reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"distill": {}}))
    names = ("data", "output_dir")
    shared = flags(**{name: served_settings.pop(name) for name in names})
    model = f"local={tmp_path / 'teacher'}"
    own = [item.replace("--", "--distill.", 1) for item in flags(**served_settings)]
    last = ["--evaluate.model", model, "--evaluate.sentence_encoder", "null"]
    pipeline.main(["--config", str(recipe), *shared, *own, *last])
    report = json.loads((tmp_path / "run" / "evaluation" / "test.json").read_text())
    assert "teacher" not in report["systems"]
    assert asked_pairs(server, reranker.processor, {"data": shared[1]}) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "org/model"}, "teacher is 'org/model'; accepted: the address of a server"),
        ({"teacher": "http://:8/v1"}, "'http://:8/v1' is no address"),
        ({"teacher": None}, "model_name_or_path given; accepted: only with the address of a server as teacher"),
        ({"model_name_or_path": None}, "model_name_or_path is None; accepted"),
        ({"requests_in_flight": 0}, "requests_in_flight is 0; accepted: 1 or more"),
        ({"model": "http://localhost:1/v1"}, "a server's address belongs to teacher"),
        ({"served_model": "other"}, "served_model is 'other', .* has 'judge'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    server: CompletionServer, evaluation: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    given = {name: value for name, value in {**evaluation, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        evaluate.main(flags(**given))
    assert not server.requests
