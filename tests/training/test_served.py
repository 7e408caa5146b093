"""A teacher behind a server in distillation: the local one's student, each pair asked once, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.distillation import RabtrieverDistillationConfig, bill, served_scores
from modeling_rabtriever.distillation import distill as distill_function
from modeling_rabtriever.distillation.served_scores import ServedScores
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.files import read_tensors
from modeling_rabtriever.served import ServedTeacher
from modeling_rabtriever.served import teacher as served_teacher
from modeling_rabtriever.stages import distill, evaluate
from modeling_rabtriever.tasks.beir import load_beir
from tests.conftest import DOCUMENTS, QUERIES
from tests.served.completion_server import DROPPED, CompletionServer
from tests.training.conftest import flags
from tests.training.tiny_encoders import write_encoder

ROOT = Path(__file__).parents[2]
PAIRS = torch.cartesian_prod(torch.arange(len(QUERIES)), torch.arange(len(DOCUMENTS)))


@pytest.fixture(autouse=True)
def all_tokens(server: CompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is among the most probable tokens, so a pair takes one request."""
    monkeypatch.setattr(served_teacher, "TOP", 400)
    server.top = 400


@pytest.fixture
def settings(served_settings: dict[str, Any]) -> dict[str, Any]:
    return served_settings


def run(**settings: Any) -> Path:
    return distill.main(flags(**settings))


def asked(server: CompletionServer, processor: RabtrieverProcessor, queries: list[str], documents: list[str]) -> int:
    """How many pairs the server was asked; fails if it was asked one twice."""
    prefixes, suffixes = processor.document_ids(documents), processor.query_ids(queries)
    wanted = {tuple(prefix + suffix) for prefix in prefixes for suffix in suffixes}
    found = [prompt for prompt in server.prompts if prompt in wanted]
    assert len(found) == len(set(found))
    return len(found)


def test_the_student_is_the_local_teachers(
    server: CompletionServer, settings: dict[str, Any], reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    served = run(**settings)
    local = {**settings, "output_dir": tmp_path / "local", "teacher": tmp_path / "teacher"}
    del local["model_name_or_path"]
    weights = [AutoModel.from_pretrained(folder).state_dict() for folder in (served, run(**local))]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-4)
    task = load_beir(settings["data"])
    assert asked(server, reranker.processor, task.split("train").queries, task.corpus) == 36 * 6
    record = json.loads((served.parent / "stage.json").read_text())
    assert record["teacher_pairs"] == 36 * 6 and record["settings"]["teacher"] == "served"
    assert server.url not in (served.parent / "stage.json").read_text()


def test_a_student_from_python_on_a_plain_encoder(
    server: CompletionServer, reranker: GenerativeRerankerModel, things: Path, tmp_path: Path
) -> None:
    """An encoder whose vectors have no fixed length: the student predicts log-odds with a map of its own."""
    teacher = ServedTeacher(server.url, reranker.processor)
    shape = StudentArguments(encoder=str(write_encoder(tmp_path / "encoder", "bert")))
    task = load_beir(things)
    queries, documents = task.split("train").queries, task.corpus
    agreement = []
    for rate in (0.0, 0.02):
        config = RabtrieverDistillationConfig(
            str(tmp_path / "out"), max_steps=20, candidates=8, use_cpu=True, report_to="none", disable_tqdm=True,
            per_device_train_batch_size=12, train_encoder="none", learning_rate=rate, save_strategy="no",
            eval_strategy="no", temperature=0.5,
        )  # fmt: skip
        student = distill_function(teacher, task, config, shape)
        scores = student.similarity(student.encode_query(queries), student.encode_document(documents))
        agreement.append(_correlation(scores, reranker.score(queries, documents)))
    assert agreement[1] > agreement[0] + 0.3


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean over queries of the correlation of their documents' scores."""
    first, second = (scores - scores.mean(1, keepdim=True) for scores in (first, second))
    return float(torch.cosine_similarity(first, second, dim=1).mean())


def test_the_bill_of_many_texts_is_that_of_a_sample(
    reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, processor = RabtrieverDistillationConfig(output_dir="x", use_cpu=True), reranker.processor
    queries, documents = [f"the dog {number} eats" for number in range(20)], ["a bone"] * 40
    exact = bill.teacher_bill(config.candidates, queries, documents, processor)
    counted: list[int] = []
    for name in ("query_ids", "document_ids"):
        ids = getattr(processor, name)
        monkeypatch.setattr(processor, name, lambda texts, ids=ids: counted.append(len(texts)) or ids(texts))
    monkeypatch.setattr(bill, "COUNTED_TEXTS", 7)
    short = [query if row % 2 == 0 else "" for row, query in enumerate(queries)]  # every second one is counted
    documents[1], documents[39] = "a bone " * 30, ""
    # What is not counted has no part in it.
    assert bill.teacher_bill(config.candidates, short, documents, processor) == exact
    assert counted == [10, 8]


def test_the_bill_is_shown_before_it_is_run_up(
    server: CompletionServer, settings: dict[str, Any], reranker: GenerativeRerankerModel, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    task = load_beir(settings["data"])
    server.close()
    assert cli.main(["distill", *flags(**settings), "--dry_run", "true"]) == 0
    shown = capsys.readouterr().out
    queries, documents = task.split("train").queries, task.corpus
    suffixes = 6 * sum(map(len, reranker.processor.query_ids(queries)))
    prefixes = sum(map(len, reranker.processor.document_ids(documents)))
    tokens, once = suffixes + round(216 * prefixes / 12), suffixes + prefixes
    assert shown == (
        f"the teacher reads 216 pairs (36 queries x 6 documents), about {tokens:,} tokens of prompts, of which about "
        f"{once:,} are computed if every document is read once, and writes 216 tokens\n"
    )
    assert not (tmp_path / "run").exists() and not server.requests
    local = {**settings, "teacher": tmp_path / "teacher"}
    del local["model_name_or_path"]
    assert cli.main(["distill", *flags(**local), "--dry_run", "true"]) == 0
    assert capsys.readouterr().out == shown
    assert not (tmp_path / "run").exists()


def test_a_cached_pair_is_not_asked_again(
    server: CompletionServer, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_teacher, "PAIRS_PER_REQUEST", 2)
    monkeypatch.setattr(served_scores, "PAIRS_PER_REQUEST", 2)
    teacher = ServedTeacher(server.url, reranker.processor)
    scores = ServedScores(tmp_path, teacher, QUERIES, DOCUMENTS)
    assert scores.score(*PAIRS[:7].T) == 7
    assert ServedScores(tmp_path, teacher, QUERIES, DOCUMENTS).score(*PAIRS.T) == len(PAIRS) - 7
    assert scores.score(*PAIRS.T) == 0
    expected = reranker.predict([(QUERIES[query], DOCUMENTS[document]) for query, document in PAIRS.tolist()])
    torch.testing.assert_close(scores.logits(*PAIRS.T), expected, atol=1e-4, rtol=0)
    assert asked(server, reranker.processor, QUERIES, DOCUMENTS) == len(PAIRS)


@pytest.mark.parametrize("fault", [503, DROPPED, 400])
def test_a_server_that_stops_half_way_loses_nothing(
    server: CompletionServer, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fault: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(served_scores, "PAIRS_PER_REQUEST", 1)
    teacher = ServedTeacher(server.url, reranker.processor, requests=2)
    scores = ServedScores(tmp_path, teacher, QUERIES, DOCUMENTS)
    server.fail(fault, times=20, after=5)
    with pytest.raises((ConnectionError, ValueError), match="gave no answer in 8 tries|status 400"):
        scores.score(*PAIRS.T)
    kept = sum(len(read_tensors(path)[0]["keys"]) for path in tmp_path.glob("pairs-*"))
    assert 4 <= kept <= 6
    server._faults.clear()
    done = asked(server, reranker.processor, QUERIES, DOCUMENTS) if fault != DROPPED else None
    again = ServedScores(tmp_path, teacher, QUERIES, DOCUMENTS)
    assert len(again) == kept and again.score(*PAIRS.T) == len(PAIRS) - kept
    if done is not None:
        assert done == kept and asked(server, reranker.processor, QUERIES, DOCUMENTS) == len(PAIRS)
    expected = reranker.predict([(QUERIES[query], DOCUMENTS[document]) for query, document in PAIRS.tolist()])
    torch.testing.assert_close(again.logits(*PAIRS.T), expected, atol=1e-4, rtol=0)


def test_answers_are_written_as_they_come(
    server: CompletionServer, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process leaves, which runs nothing at its end."""
    monkeypatch.setattr(served_scores, "PAIRS_PER_REQUEST", 1)
    monkeypatch.setattr(served_scores, "UNWRITTEN_SECONDS", 0.0)
    scores = ServedScores(tmp_path, ServedTeacher(server.url, reranker.processor, requests=1), QUERIES, DOCUMENTS)
    written = []
    server.change = lambda answer: written.append(len(list(tmp_path.glob("pairs-*")))) or answer
    scores.score(*PAIRS.T)
    assert len(written) == len(PAIRS) and written[-1] >= len(PAIRS) - 2


def test_a_cache_is_of_one_model_one_prompt_and_one_set_of_texts(
    server: CompletionServer, reranker: GenerativeRerankerModel, tmp_path: Path, serve: Callable[..., CompletionServer]
) -> None:
    def cache(server: CompletionServer, documents: list[str] = DOCUMENTS, **prompt: Any) -> ServedScores:
        teacher = ServedTeacher(server.url, reranker.processor.replace(**prompt))
        return ServedScores(tmp_path, teacher, QUERIES, documents)

    cache(server)
    cache(serve(reranker))  # another address
    for changed, arguments in (("reading", {"instruction": "Is it?"}), ("texts", {"documents": DOCUMENTS[:2]})):
        with pytest.raises(ValueError, match=rf"another teacher, prompt or task \(different: {changed}\)"):
            cache(server, **arguments)
    for model in ({"id": "other"}, {"id": "judge", "meta": {"size": 5}}):
        server.models = [model]
        with pytest.raises(ValueError, match=r"another teacher, prompt or task \(different: server\)"):
            cache(server)


def test_a_run_resumes_at_another_address_and_needs_none_when_it_is_done(
    server: CompletionServer, settings: dict[str, Any], reranker: GenerativeRerankerModel,
    serve: Callable[..., CompletionServer], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.fail(500, times=999, after=8)
    assert cli.main(["distill", *flags(**settings)]) == 2
    said = capsys.readouterr()
    assert "the teacher reads 216 pairs" in said.out and "Traceback" not in said.err
    assert "gave no answer in 8 tries (status 500" in said.err and "scored pairs are kept" in said.err
    moved = serve(reranker)
    moved.top = 400
    assert cli.main(["distill", *flags(**{**settings, "teacher": moved.url, "requests_in_flight": 3})]) == 0
    task = load_beir(settings["data"])
    counts = [asked(one, reranker.processor, task.split("train").queries, task.corpus) for one in (server, moved)]
    assert sum(counts) == 216 and min(counts) > 0
    moved.close()
    assert cli.main(["distill", *flags(**settings)]) == 0
    assert "already done" in capsys.readouterr().out


def test_its_student_is_evaluated_without_it(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(**settings)
    given = {"data": settings["data"], "output_dir": settings["output_dir"], "sentence_encoder": "nobody/nothing"}
    folder = evaluate.main(flags(**given))
    report = json.loads((folder / "test.json").read_text())
    assert "Rabtriever" in report["systems"] and "teacher" not in report["systems"]
    assert "no cards: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "encoder is None.*accepted with a teacher behind a server"),
        ({"encoder": 1}, "encoder is '1'.*accepted with a teacher behind a server"),
        ({"predictor_type": "paper"}, "predictor_type is 'paper'; accepted with a teacher behind a server"),
        ({"mse_weight": 0.1}, "mse_weight is 0.1 and kl_weight is 0.0; accepted with a teacher behind a server"),
        ({"kl_weight": 0.1}, "mse_weight is 0.0 and kl_weight is 0.1; accepted with a teacher behind a server"),
        ({"model_name_or_path": None}, "model_name_or_path is None, cross_encoder is None; accepted with a teacher"),
        ({"cross_encoder": "x"}, "cross_encoder is 'x'; accepted with a teacher behind a server"),
        ({"requests_in_flight": 0}, "requests_in_flight is 0; accepted: 1 or more"),
        ({"instruction": "Why?"}, "instruction given, but .* has a prompt of its own"),
        ({"model_name_or_path": "nowhere"}, "model_name_or_path nowhere cannot be read"),
        ({"teacher": "http://:8/v1"}, "'http://:8/v1' is no address"),
        ({"teacher": "http://me:password@a/v1", "dry_run": True}, "http://a/v1 has more than host, port and path"),
        ({"served_model": "other"}, "served_model is 'other', .* has 'judge'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_a_pair_is_asked(
    server: CompletionServer, settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    changed = {name: value for name, value in {**settings, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        run(**changed)
    assert not server.requests
    with pytest.raises(ValueError, match="served_model is 'a', teacher is None; accepted: only with the address"):
        run(data=settings["data"], output_dir=settings["output_dir"], served_model="a")


def test_a_tokenizer_without_a_prompt_gets_the_options(
    server: CompletionServer, settings: dict[str, Any], reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    reranker.processor.tokenizer.save_pretrained(plain)
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    run(**{**settings, **prompt, "model_name_or_path": plain, "max_steps": 1})
    task = load_beir(settings["data"])
    assert asked(server, reranker.processor, task.split("train").queries, task.corpus) == 12 * 6  # the step's queries


@pytest.mark.slow
def test_a_killed_run_asks_at_most_what_was_under_way_again(
    server: CompletionServer, settings: dict[str, Any], reranker: GenerativeRerankerModel
) -> None:
    code = (
        "import sys; from modeling_rabtriever.distillation import served_scores; import rabtriever_cli as cli; "
        "served_scores.UNWRITTEN_SECONDS = 0.0; sys.exit(cli.main(sys.argv[1:]))"
    )
    server.seconds = 0.3
    command = [sys.executable, "-c", code, "distill", *flags(**settings, requests_in_flight=1)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    states = settings["output_dir"] / "states"
    while process.poll() is None and len(list(states.glob("*/pairs-*"))) < 3:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(1)  # the server ends what it was asked
    server.seconds = 0
    before = len(server.prompts)
    run(**settings)
    kept = 3 * served_teacher.PAIRS_PER_REQUEST
    assert before >= kept and len(server.prompts) - before - 3 <= 216 - kept


def test_scores_that_cannot_be_written_end_the_asking_quietly(
    server: CompletionServer, reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_scores, "PAIRS_PER_REQUEST", 1)
    monkeypatch.setattr(served_scores, "UNWRITTEN_SECONDS", 0.0)
    parts = ServedScores(tmp_path, ServedTeacher(server.url, reranker.processor), QUERIES, DOCUMENTS)._parts(
        torch.arange(len(PAIRS))
    )
    next(parts)
    parts.close()  # what follows a full disk; yielding again would be an error
