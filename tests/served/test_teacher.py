"""A teacher behind a server: the local one's log-odds from both forms of answers, and nothing guessed."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tenacity import RetryCallState, Retrying

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.evaluation.systems import model_system, reranker_system
from modeling_rabtriever.served import ServedTeacher, client
from modeling_rabtriever.served.in_flight import in_flight
from tests.conftest import DOCUMENTS, QUERIES
from tests.served.completion_server import DROPPED, CompletionServer

PAIRS = [(query, document) for query in range(len(QUERIES)) for document in range(len(DOCUMENTS))]
FORMS = pytest.mark.parametrize("form", ["legacy", "content"])


def scores(server: CompletionServer, processor: RabtrieverProcessor, **settings: Any) -> torch.Tensor:
    return ServedTeacher(server.url, processor, **settings).score_pairs(QUERIES, DOCUMENTS, PAIRS)


def check(server: CompletionServer, reranker: GenerativeRerankerModel) -> None:
    expected = reranker.score_pairs(QUERIES, DOCUMENTS, PAIRS)
    torch.testing.assert_close(scores(server, reranker.processor), expected, atol=1e-4, rtol=0)


@FORMS
@pytest.mark.parametrize("top", [400, 20, 5, 1])
def test_log_odds_are_the_local_teachers(
    serve: Callable[..., CompletionServer],
    reranker: GenerativeRerankerModel,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    top: int,
) -> None:
    """Whether both answers are among the most probable tokens or have to be asked for one by one."""
    monkeypatch.setattr("modeling_rabtriever.served.teacher.TOP", max(top, 20))
    server = serve(reranker, form)
    server.top = top
    check(server, reranker)
    forced = sum("logit_bias" in body for body in server.requests)
    assert forced == 2 if top == 400 else forced > 2  # two of them are the check


@FORMS
def test_tokens_that_the_server_names_by_their_text(
    serve: Callable[..., CompletionServer], reranker: GenerativeRerankerModel, form: str
) -> None:
    server = serve(reranker, form)
    server.names_ids = False
    check(server, reranker)


def test_texts_that_several_tokens_have_are_no_names(
    server: CompletionServer, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.names_ids, server.top = False, 400
    monkeypatch.setattr(ServedTeacher, "_texts_differ", False)
    with pytest.raises(ValueError, match="several of this vocabulary read .*accepted: a server that names ids"):
        scores(server, reranker.processor)


def test_it_ranks_as_the_local_teacher(server: CompletionServer, reranker: GenerativeRerankerModel) -> None:
    teacher = ServedTeacher(server.url, reranker.processor)
    documents = [*DOCUMENTS, DOCUMENTS[0]]
    found, expected = teacher.rank(QUERIES[1], documents, 4), reranker.rank(QUERIES[1], documents, 4)
    assert [row["corpus_id"] for row in found] == [row["corpus_id"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-4)
    with pytest.raises(ValueError, match="blank"):
        teacher.rank(" ", documents)


def test_prompts_are_the_processors_and_a_documents_queries_follow_one_another(
    server: CompletionServer, reranker: GenerativeRerankerModel
) -> None:
    processor = reranker.processor
    scores(server, processor, requests=1)
    prefixes, suffixes = processor.document_ids(DOCUMENTS), processor.query_ids(QUERIES)
    asked = [tuple(prefix + suffix) for prefix in prefixes for suffix in suffixes]
    assert [prompt for prompt in dict.fromkeys(server.prompts) if prompt in asked] == asked
    assert server.busiest == 1
    body = server.requests[-1]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 1, 0)


def test_requests_are_in_flight_together(
    server: CompletionServer, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling_rabtriever.served.teacher.PAIRS_PER_REQUEST", 1)
    server.seconds, server.top = 0.05, 400
    scores(server, reranker.processor, requests=4)
    assert 2 <= server.busiest <= 4


def test_a_served_teacher_ranks_where_a_local_one_does(
    server: CompletionServer, reranker: GenerativeRerankerModel
) -> None:
    teacher = ServedTeacher(server.url, reranker.processor)
    served, local = model_system(teacher, DOCUMENTS), reranker_system(reranker, DOCUMENTS)
    assert served.name == local.name
    torch.testing.assert_close(served.score(QUERIES), local.score(QUERIES), atol=1e-4, rtol=0)
    rows = torch.tensor([[0, 3], [2, 1], [1, 0]])
    assert served.score_pairs is not None and local.score_pairs is not None
    torch.testing.assert_close(served.score_pairs(QUERIES, rows), local.score_pairs(QUERIES, rows), atol=1e-4, rtol=0)


@pytest.mark.parametrize("fault", [429, 500, 502, 503, DROPPED])
def test_a_fault_that_passes_is_asked_again(
    server: CompletionServer, reranker: GenerativeRerankerModel, fault: int
) -> None:
    server.fail(fault, times=client.TRIES - 1)
    check(server, reranker)


def test_a_try_that_fails_is_told_at_once(
    server: CompletionServer, reranker: GenerativeRerankerModel, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(503, times=2)
    scores(server, reranker.processor, requests=1)
    (said, *_) = [record.getMessage() for record in caplog.records if record.name == client.__name__]
    assert said.startswith(f"{server.url} gave no answer (status 503, ") and said.endswith("; try 2 of 8 in 0 s")


def test_a_slow_answer_is_asked_again(
    server: CompletionServer, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(client, "TRIES", 2)
    server.seconds = 0.5
    with pytest.raises(ConnectionError, match="no answer in 2 tries .ReadTimeout.*run the same command again"):
        scores(server, reranker.processor)


def test_a_fault_that_stays_is_told(server: CompletionServer, reranker: GenerativeRerankerModel) -> None:
    server.fail(503, times=99)
    with pytest.raises(ConnectionError, match=f"{server.url} gave no answer in 8 tries .status 503.*not now"):
        scores(server, reranker.processor)


def test_no_server_there(reranker: GenerativeRerankerModel, serve: Callable[..., CompletionServer]) -> None:
    server = serve(reranker)
    server.close()
    with pytest.raises(ConnectionError, match="no answer in 8 tries .ConnectError"):
        scores(server, reranker.processor)


def test_waits_as_long_as_the_server_asks_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    state = RetryCallState(Retrying(), None, (), {})

    def waits(header: str | None) -> float:
        error = client._PassingError("", client._seconds(header))
        state.set_exception((type(error), error, None))
        return client._waiting(lambda _: 2.0)(state)

    assert [waits(header) for header in (None, "0", "7", "1.5", "3600", "-3", "Wed, 21 Oct 2026 07:28:00 GMT")] == [
        2, 2, 7, 2, client.LONGEST_WAIT, 2, 2,
    ]  # fmt: skip


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no logprobs": (lambda answer: _each(answer, logprobs=None), "gave no log probabilities for a prompt .None"),
    "empty logprobs": (lambda answer: _each(answer, logprobs={}), "gave no log probabilities"),
    "empty content": (lambda answer: _each(answer, logprobs={"content": []}), "gave no log probabilities"),
    "no top": (
        lambda answer: _each(answer, logprobs={"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None}),
        "gave no log probabilities",
    ),
    "a choice less": (lambda answer: {**answer, "choices": answer["choices"][1:]}, "prompts with the choices"),
    "a choice twice": (lambda answer: {**answer, "choices": answer["choices"] * 2}, "prompts with the choices"),
    "no choices": (lambda answer: {"error": "?"}, "prompts with the choices"),
    "choices of something else": (lambda answer: {**answer, "choices": "yes"}, "prompts with the choices"),
    "NaN": (lambda answer: _first(answer, math.nan), "gave 'NaN' as the log probability"),
    "infinity": (lambda answer: _first(answer, -math.inf), "gave -inf as the log probability"),
    "the logarithm of 0": (lambda answer: _first(answer, -3.4028234663852886e38), "gave -3.4.*e.38 as the log prob"),
    "a probability": (lambda answer: _first(answer, 0.7), "gave 0.7 as the log probability"),
    "null": (lambda answer: _first(answer, None), "gave None as the log probability"),
    "half of JSON": (lambda answer: b'{"choices": [', "something else than JSON"),
    "JSON without an end": (lambda answer: b"[" * 200_000, "something else than JSON"),
    "a page": (lambda answer: b"<html>Welcome</html>", "something else than JSON .'<html>Welcome"),
    "a list": (lambda answer: b"[]", "something else than a JSON object"),
    "tokens more": (lambda answer: {**answer, "usage": {"prompt_tokens": 99}}, "read 99 tokens of a prompt of"),
    "another vocabulary": (lambda answer: _each(answer, text="ja"), "is 'ja' at http.*in the tokenizer"),
}


def _each(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**answer, "choices": [{**choice, **changes} for choice in answer["choices"]]}


def _first(answer: dict[str, Any], value: float | None) -> dict[str, Any]:
    return _each(answer, logprobs={"tokens": ["a"], "token_logprobs": [value], "top_logprobs": [{"b": -1.0}]})


@pytest.mark.parametrize("fault", CHANGES)
def test_answers_that_are_none(server: CompletionServer, reranker: GenerativeRerankerModel, fault: str) -> None:
    server.change, message = CHANGES[fault]
    with pytest.raises(ValueError, match=f"{message}.*; accepted: "):
        scores(server, reranker.processor)


def test_an_answer_that_cannot_be_found_out_is_not_guessed(
    server: CompletionServer, reranker: GenerativeRerankerModel
) -> None:
    server.top, server.heeds_bias = 1, False
    with pytest.raises(ValueError, match="is not among the 1 most probable ones, and with logit_bias 100 the server"):
        scores(server, reranker.processor)
    server.heeds_bias = server.biased = True
    for server.top in (1, 5):
        with pytest.raises(ValueError, match="change with logit_bias, so its own is unknown; accepted: .*raw_logprobs"):
            scores(server, reranker.processor)


@pytest.mark.parametrize(
    ("models", "wanted", "shown"),
    [
        ([], None, "has no model"),
        ([{"id": "a"}, {"id": "b"}], None, "has 'a', 'b'"),
        ([{"id": "a"}, {"id": "b"}], "c", "served_model is 'c'"),
        ([{"id": "a\x1b\n"}, {"id": "b"}], None, r"has 'a\\x1b\\n', 'b'"),
        ([{"name": "a"}, "b", {"id": 3}], None, "has no model"),
        ("judge", None, "has no model"),
    ],
)
def test_which_model_is_meant(
    server: CompletionServer, reranker: GenerativeRerankerModel, models: Any, wanted: str | None, shown: str
) -> None:
    server.models = models
    with pytest.raises(ValueError, match=f"{shown}.*; accepted: one of its names, or none if it has one model"):
        scores(server, reranker.processor, model=wanted)


def test_a_description_tells_apart_models_of_one_name(
    server: CompletionServer, reranker: GenerativeRerankerModel
) -> None:
    server.models = [{"id": "a", "created": 3}, {"id": "b", "meta": {"n_vocab": 9, "size": 8, "n_ctx": 7}}]
    found = [ServedTeacher(server.url, reranker.processor, name).connect() for name in "ab"]
    assert found == [{"id": "a"}, {"id": "b", "n_vocab": 9, "size": 8}]


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    server: CompletionServer, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret-key"
    with pytest.raises(ValueError, match="status 401.*the server's API key in RABTRIEVER_API_KEY, which is not set"):
        scores(server, reranker.processor)
    monkeypatch.setenv(client.KEY, "secret-guess")
    with pytest.raises(ValueError, match="status 401.*'wrong key: Bearer ...'.*which is not accepted") as refused:
        scores(server, reranker.processor)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv(client.KEY, "secret-key\n")
    check(server, reranker)
    for key in ("schlüssel", "secret\nkey", "secret\tkey"):
        monkeypatch.setenv(client.KEY, key)
        with pytest.raises(ValueError, match="RABTRIEVER_API_KEY holds a character") as refused:
            scores(server, reranker.processor)
        assert key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000", "http://", "http:///v1", "ftp://a/v1", "http://a:b/v1", "", "a/b"),
        *("http://local host/v1", "http://a\x1b/v1", "http://a..b/v1", f"http://{'a' * 64}/v1"),
    ],
)
def test_an_address_is_a_servers(processor: RabtrieverProcessor, url: str) -> None:
    with pytest.raises(ValueError, match="is no address; accepted: the address of an OpenAI-compatible server"):
        ServedTeacher(url, processor)


@pytest.mark.parametrize("url", ["http://me:password@a/v1", "https://a/v1?key=password", "http://a/v1#password"])
def test_an_address_holds_no_secret(processor: RabtrieverProcessor, url: str) -> None:
    with pytest.raises(ValueError, match="has more than host, port and path") as refused:
        ServedTeacher(url, processor)
    assert "password" not in str(refused.value)
    with pytest.raises(ValueError, match=r"'http://...@a:99999' is no address"):
        ServedTeacher("http://me:password@a:99999", processor)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("HTTP_PROXY", proxy) for proxy in ("socks5://x:1", "ftp://x", "http://[::1")),
        *(("SSL_CERT_FILE", path) for path in ("/nowhere", __file__)),
    ],
)
def test_an_environment_of_no_use_is_told(
    processor: RabtrieverProcessor, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv(name.lower(), value)
    with pytest.raises(ValueError, match=f"settings for HTTP cannot be used .*accepted: in .*{name}"):
        ServedTeacher("http://localhost:1/v1", processor)


def test_a_proxy_that_does_not_answer_is_named(
    server: CompletionServer, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="in 8 tries through the proxy that HTTP_PROXY, .* name "):
        ServedTeacher(server.url, reranker.processor).connect()
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    check(server, reranker)


def test_a_wrong_path_is_told(server: CompletionServer, reranker: GenerativeRerankerModel) -> None:
    with pytest.raises(ValueError, match="status 404.*accepted: the address of an OpenAI-compatible server up to its"):
        ServedTeacher(server.url.removesuffix("/v1"), reranker.processor).connect()
    assert ServedTeacher(server.url + "/", reranker.processor).connect()["id"] == "judge"
    with pytest.raises(ValueError, match="requests is 0; accepted: 1 or more"):
        ServedTeacher(server.url, reranker.processor, requests=0)


def test_after_an_error_nothing_begins_and_what_is_done_is_given_out() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("no")
        time.sleep(0.05)
        return -item

    with pytest.raises(ValueError, match="no"):
        list(in_flight(work, range(50), 3))
    assert len(begun) <= 4
    assert sorted(in_flight(lambda item: -item, range(50), 3)) == [(item, -item) for item in range(50)]


def test_results_before_an_error_come_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.1 * item)
        if item == 1:
            raise ValueError("no")
        return item

    found = in_flight(work, [0, 1, 2], 3)
    assert [next(found), next(found)] == [(0, 0), (2, 2)]
    with pytest.raises(ValueError, match="no"):
        next(found)
