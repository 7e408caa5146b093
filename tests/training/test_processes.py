"""A run on two processes is the run on one: same steps, same models, the teacher's pairs divided, one record."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.stages import train_reranker
from tests.conftest import write_animals
from tests.served.completion_server import CompletionServer
from tests.training import launched
from tests.training.tiny_encoders import write_sentence_transformer

pytestmark = pytest.mark.slow  # launches; test_shared_trainer holds the parts by themselves
ROOT = Path(__file__).parents[2]
STAGES = {
    "pretrain": "backbone",
    "train_reranker": "teacher",
    "distill": "student",
    "distill_encoder": "encoder/student",
}


class Run(NamedTuple):
    folder: Path
    outcomes: list[dict[str, dict[str, Any]]]  # per process: name of a command -> what came of it


def _flags(settings: dict[str, Any]) -> list[str]:
    return [item for name, value in settings.items() for item in (f"--{name}", str(value))]


def _commands(data: Path, output: Path) -> dict[str, dict[str, Any]]:
    """One of each kind of trainer; 37 queries and 36 pairs leave short batches, one of them of a single row."""
    shared = {"data": data, "output_dir": output, "seed": 1, "report_to": "none", "disable_tqdm": "true"}
    shared |= {"optim": "sgd", "lr_scheduler_type": "constant", "logging_steps": 1}
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    groups = {"negatives_per_positive": 3, "dev_groups": 9}
    groups |= {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 16}
    pretrain = {**shared, **prompt, "model_name_or_path": data.parent / "backbone.json", "learning_rate": 0.1}
    pretrain |= {"per_device_train_batch_size": 16, "num_train_epochs": 2, "eval_strategy": "epoch"}
    teacher = {**shared, **prompt, **groups, "objective": "listwise", "document_lm_weight": 0.1}
    teacher |= {"max_steps": 4, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    teacher |= {"save_steps": 2, "learning_rate": 0.1}
    student = {**shared, "embedding_dim": 16, "candidates": 8, "rounds": 2}
    student |= {"train_encoder": "none", "mse_weight": 0.1, "kl_weight": 0.1, "learning_rate": 0.05}
    student |= {"unlabelled_queries": data.parent / "log.jsonl", "per_device_train_batch_size": 12, "max_steps": 9}
    student |= {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 3}
    encoder = {**student, "output_dir": output / "encoder", "teacher": output / "teacher" / "model"}
    encoder |= {"train_encoder": "full", "encoder_learning_rate": 0.01, "mse_weight": 0, "kl_weight": 0}
    encoder |= {"label_share": 0.5, "states": output / "encoder" / "states"}
    settings = {"pretrain": pretrain, "train_reranker": teacher, "distill": student, "distill_encoder": encoder}
    modules = {name: f"training.{name.removesuffix('_encoder')}" for name in settings}
    return {name: {"module": modules[name], "flags": _flags(values)} for name, values in settings.items()}


def _launch(commands: dict[str, dict[str, Any]], file: Path) -> subprocess.Popen[bytes]:
    file.write_text("".join(f"{json.dumps(command)}\n" for command in commands.values()))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", launched.__name__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with file.with_suffix(".out").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *launcher, str(file)], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.1, "head_dim": 8}
    (folder / "backbone.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": 400, **sizes}))
    (folder / "log.jsonl").write_text(json.dumps({"_id": "u", "text": "find the ant"}) + "\n")
    return write_animals(folder / "animals")


@pytest.fixture(scope="module")
def one(data: Path) -> Run:
    """The stages on one process."""
    folder = data.parent / "one"
    outcomes = {name: launched.run(**command) for name, command in _commands(data, folder).items()}
    assert [outcome["error"] for outcome in outcomes.values()] == [""] * len(outcomes)
    return Run(folder, [outcomes])


@pytest.fixture(scope="module")
def two(data: Path) -> Run:
    """The stages on two processes, and then what goes wrong or is stopped in the middle."""
    folder = data.parent / "two"
    commands = _commands(data, folder)
    teacher, student = commands["train_reranker"], commands["distill"]
    changed = [*teacher["flags"], "--output_dir", str(data.parent / "changed"), "--max_steps", "1"]
    changed += ["--model_name_or_path", str(folder / "backbone" / "model")]
    undivided = [*changed, "--output_dir", str(data.parent / "undivided"), "--per_device_train_batch_size", "12"]
    stopped = [*student["flags"], "--output_dir", str(data.parent / "stopped")]
    stopped += ["--teacher", str(folder / "teacher" / "model")]
    commands |= {
        "again": teacher,
        "first": {**teacher, "flags": changed},
        "refused": {**teacher, "flags": [*changed, "--learning_rate", "0.2"]},
        "replaced": {**teacher, "flags": [*changed, "--learning_rate", "0.2", "--overwrite", "true"]},
        "undivided": {**teacher, "flags": undivided},
        "failing": {"module": launched.__name__, "flags": ["1"]},
        "stopped": {**student, "flags": stopped, "stop_after": 5},
        "resumed": {**student, "flags": stopped},
        "evaluate": {"module": "training.evaluate", "flags": ["--data", str(data), "--output_dir", str(folder)]},
    }
    commands["evaluate"]["flags"] += ["--sentence_encoder", "nobody/nothing"]
    generate = {"data": data, "output_dir": folder, "model_name_or_path": folder / "backbone" / "model", "count": 3}
    generate |= {"max_new_tokens": 40, "per_device_train_batch_size": 12, "max_steps": 3, "disable_tqdm": "true"}
    commands["generate"] = {"module": "training.generate_queries", "flags": _flags(generate)}
    file = data.parent / "commands"
    assert _launch(commands, file).wait(timeout=300) == 0, file.with_suffix(".out").read_text()
    lines = [Path(f"{file}.{index}").read_text().splitlines() for index in range(2)]
    return Run(folder, [dict(zip(commands, map(json.loads, part), strict=True)) for part in lines])


@pytest.mark.parametrize("stage", STAGES)
def test_the_model_is_the_one_of_a_single_process(one: Run, two: Run, stage: str) -> None:
    single, shared = (load_file(run.folder / STAGES[stage] / "model" / "model.safetensors") for run in (one, two))
    torch.testing.assert_close(shared, single, atol=2e-4, rtol=1e-4)
    assert {outcomes[stage]["passes"] for outcomes in two.outcomes} == {one.outcomes[0][stage]["passes"]}


@pytest.mark.parametrize("stage", STAGES)
def test_losses_and_measures_are_those_of_the_whole_batch(one: Run, two: Run, stage: str) -> None:
    logs = [json.loads((run.folder / STAGES[stage] / "log.json").read_text()) for run in (one, two)]
    assert len(logs[0]) == len(logs[1]) and any("eval" in name for record in logs[0] for name in record)
    for single, shared in zip(*logs, strict=True):
        assert shared.keys() == single.keys()
        kept = [name for name in single if "runtime" not in name and "second" not in name]
        assert [shared[name] for name in kept] == pytest.approx([single[name] for name in kept], rel=1e-3, abs=1e-4)


def test_the_processes_divide_the_teachers_pairs(one: Run, two: Run) -> None:
    asked = [[load_file(path)["keys"] for path in run.folder.glob("states/*/pairs-*")] for run in (one, two)]
    assert len(asked[1]) == 2 * len(asked[0])  # each time both asked for a part
    single, shared = (torch.cat(keys).sort().values for keys in asked)
    assert torch.equal(shared, single) and len(shared.unique()) == len(shared)


def test_the_processes_divide_the_pairs_of_a_served_teacher(one: Run, data: Path, tmp_path: Path) -> None:
    teacher = one.folder / "teacher" / "model"
    server = CompletionServer(GenerativeRerankerModel.from_pretrained(teacher))
    encoder = write_sentence_transformer(tmp_path / "encoder", "bert", "mean")
    settings = {"data": data, "output_dir": tmp_path / "run", "teacher": server.url, "model_name_or_path": teacher}
    settings |= {"encoder": encoder, "candidates": 8, "rounds": 2, "per_device_train_batch_size": 12, "max_steps": 3}
    settings |= {"use_cpu": "true", "report_to": "none", "disable_tqdm": "true"}
    file = tmp_path / "commands"
    try:
        command = {"module": "training.distill", "flags": _flags(settings)}
        assert _launch({"distill": command}, file).wait(timeout=300) == 0, file.with_suffix(".out").read_text()
        asked = list(server.prompts)
        settings = {name: settings[name] for name in ("data", "output_dir", "teacher", "model_name_or_path")}
        command = {"module": "training.evaluate", "flags": _flags(settings | {"sentence_encoder": "null"})}
        rank = tmp_path / "rank"
        assert _launch({"evaluate": command}, rank).wait(timeout=300) == 0, rank.with_suffix(".out").read_text()
    finally:
        server.close()
    outcomes = [json.loads(Path(f"{path}.{index}").read_text()) for path in (file, rank) for index in range(2)]
    assert [outcome["status"] for outcome in outcomes] == [0] * 4, outcomes
    assert "the teacher reads 288 pairs" in outcomes[0]["printed"] and outcomes[1]["printed"] == ""
    report = json.loads((tmp_path / "run" / "evaluation" / "test.json").read_text())
    assert {"teacher", "Rabtriever"} <= report["systems"].keys()
    counts = Counter(asked)
    checks = [prompt for prompt, count in counts.items() if count == 2]  # each process checks the server with one
    assert len(checks) == 1 and len(asked) - 2 == len(counts) - 1 == 288
    assert len(list(tmp_path.glob("run/states/*/pairs-*"))) == 2 * 3 + 1  # each process in each round; the evaluation


def test_one_process_writes_and_prints(one: Run, two: Run) -> None:
    for stage in STAGES.values():
        records = [json.loads((run.folder / stage / "stage.json").read_text()) for run in (one, two)]
        for record in records:  # but for paths, and digests of weights that differ by rounding
            for name in ("model_name_or_path", "teacher", "states"):
                record["settings"].pop(name, None)
            assert record.pop("inputs")
        assert records[0] == records[1]
    main, other = two.outcomes
    assert [outcome["printed"] for outcome in other.values()] == [""] * len(other)
    assert "teacher: already done" in main["again"]["printed"] and main["again"]["passes"] == 0
    assert not list(two.folder.rglob("*.tmp"))


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(two: Run) -> None:
    for outcomes in two.outcomes:
        assert (outcomes["stopped"]["status"], outcomes["resumed"]["status"]) == (launched.STOPPED, 0)
    assert two.outcomes[0]["resumed"]["passes"] == 9 - 3  # from the checkpoint of step 3
    whole, resumed = (
        load_file(folder / "student" / "model" / "model.safetensors")
        for folder in (two.folder, two.folder.parent / "stopped")
    )
    torch.testing.assert_close(resumed, whole, atol=2e-4, rtol=1e-4)


def test_a_refusal_ends_all_processes_alike(two: Run) -> None:
    main, other = (outcomes["refused"] for outcomes in two.outcomes)
    assert "learning_rate (0.1 there, 0.2 now)" in main["error"]
    assert (main["status"], other["status"], other["error"]) == (2, 2, "")
    main, other = (outcomes["failing"] for outcomes in two.outcomes)
    assert main["error"] == "process 1: this process cannot go on"
    assert (main["status"], other["status"], other["error"]) == (2, 2, "")


def test_overwriting_is_decided_once(two: Run) -> None:
    assert [outcomes["replaced"]["status"] for outcomes in two.outcomes] == [0, 0]
    record = json.loads((two.folder.parent / "changed" / "teacher" / "stage.json").read_text())
    assert record["done"] and record["settings"]["learning_rate"] == 0.2


def test_a_batch_that_cannot_be_divided_is_refused(two: Run) -> None:
    for outcomes in two.outcomes:
        found = outcomes["undivided"]
        assert found["status"] == launched.BAD_INPUT
        assert "12, with 2 processes and groups of 4 rows; accepted: a multiple of 8" in found["error"]


def test_one_process_evaluates(two: Run) -> None:
    assert [outcomes["evaluate"]["status"] for outcomes in two.outcomes] == [0, 0]
    report = json.loads((two.folder / "evaluation" / "test.json").read_text())
    assert report["n"] == 24 and {"teacher", "Rabtriever"} <= report["systems"].keys()


def test_queries_are_written_once(two: Run) -> None:
    assert [outcomes["generate"]["status"] for outcomes in two.outcomes] == [0, 0]
    assert [outcomes["generate"]["passes"] for outcomes in two.outcomes] == [3, 3]  # both fit the language model
    folder = two.folder / "queries"
    assert sorted(path.name for path in folder.iterdir()) == ["queries.jsonl", "stage.json"]
    assert len((folder / "queries.jsonl").read_text().splitlines()) == 3


def test_a_killed_process_ends_the_run_and_spoils_nothing(data: Path, tmp_path: Path) -> None:
    long = _commands(data, tmp_path)["train_reranker"]["flags"]
    long += ["--model_name_or_path", str(data.parent / "backbone.json"), "--max_steps", "24"]
    file, folder = tmp_path / "commands", tmp_path / "killed" / "teacher"
    killed = [*long, "--output_dir", str(folder.parent)]
    process = _launch({"train": {"module": "training.train_reranker", "flags": killed}}, file)
    while process.poll() is None and not list(folder.glob("checkpoints/checkpoint-*/checksums.json")):
        time.sleep(0.001)
    assert process.poll() is None
    os.kill(int(Path(f"{file}.1.pid").read_text()), signal.SIGKILL)
    assert process.wait(timeout=60) != 0 and not json.loads((folder / "stage.json").read_text())["done"]
    resumed = train_reranker.main(killed)
    whole = train_reranker.main([*long, "--output_dir", str(tmp_path / "whole")])
    weights = [load_file(path / "model.safetensors") for path in (resumed, whole)]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=1e-4)
    steps = [record["step"] for record in json.loads((folder / "log.json").read_text()) if "loss" in record]
    assert steps == list(range(1, 25))
