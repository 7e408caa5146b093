"""Who the page answers, what it does not have, and what it does not read."""

import itertools
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeling_rabtriever.demo import guard
from modeling_rabtriever.demo.documents import OWN_BYTES
from modeling_rabtriever.demo.guard import BODIES, EVENT, UPLOAD, Guard
from tests.demo.conftest import RunningPage
from tests.demo.visitor import Visitor, raw

MANY = 200 * 1024 * 1024  # bytes
FORM = "Content-Type: multipart/form-data; boundary=x"
JSON = "Content-Type: application/json"
FILE = {"meta": {"_type": "gradio.FileData"}}


def test_hosts(running: RunningPage) -> None:
    port = running.url.rsplit(":", 1)[1].strip("/")
    for host in (f"127.0.0.1:{port}", "127.0.0.1", f"LocalHost:{port}", f"[::1]:{port}", "[0:0::1]"):
        assert raw(running.url, f"GET /config HTTP/1.1\nHost: {host}")[0] == 200
    for host in (
        "rebound.example", f"rebound.example:{port}", "127.0.0.1.rebound.example", "localhost.rebound.example",
        "127.0.0.1@rebound.example", "rebound.example,127.0.0.1", "0.0.0.0", "10.0.0.1", "[::2]", "localhost.", "",
    ):  # fmt: skip
        for method in ("GET", "POST", "OPTIONS", "PUT"):
            status, said = raw(
                running.url, f"{method} /gradio_api/queue/join HTTP/1.1\nHost: {host}\nOrigin: http://{host}"
            )
            assert status == 400 and f"the host is {host!r}; accepted: " in json.loads(said)["detail"]
    assert raw(running.url, "GET / HTTP/1.0")[0] == 400


@pytest.mark.parametrize(
    ("hosts", "space", "answered", "refused"),
    [
        (["127.0.0.1"], "", ["127.0.0.1", "localhost", "[::1]"], ["10.0.0.7", "box", "a-b.hf.space"]),
        (["box.lan", "10.0.0.7"], "", ["Box.lan:80", "10.0.0.7", "localhost"], ["10.0.0.8", "box"]),
        (["fe80:0::1"], "", ["[fe80::1]:80", "[FE80:0::1]"], ["[fe80::2]"]),
        (["0.0.0.0"], "", ["10.0.0.7", "[fe80::1]", "127.0.0.1", "thisbox"], ["box", "10.0.0.7.example"]),
        (["::"], "", ["10.0.0.7", "[fe80::1]:7860", "thisbox:7860"], ["otherbox"]),
        (["0.0.0.0"], "a-b.hf.space", ["a-b.hf.space", "10.0.0.7"], ["c-d.hf.space", "hf.space"]),
        (["0.0.0.0"], "a-b.hf.space, own.example", ["a-b.hf.space", "OWN.example"], ["example"]),
    ],
)
def test_hosts_of_an_address(
    hosts: list[str],
    space: str,
    answered: list[str],
    refused: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPACE_HOST", space)
    monkeypatch.setattr(guard.socket, "gethostname", lambda: "ThisBox")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://Shown.example:8443/demo")
    made = Guard(page, hosts, tmp_path)
    for host in [*answered, "shown.example:8443"]:
        assert ask(made, "GET", "/", host=host)[0] == 200, host
    for host in refused:
        assert ask(made, "GET", "/", host=host)[0] == 400, host


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),  # a program, not a browser
        ("POST", {"origin": "http://here:7860"}, 200),
        (
            "POST",
            {"origin": "https://shown.example", "sec-fetch-site": "same-origin"},
            200,
        ),  # a proxy with its own name
        ("GET", {"sec-fetch-site": "cross-site"}, 200),  # somebody follows a link, or a Space's frame is drawn
        ("POST", {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "http://here:3000", "sec-fetch-site": "same-site"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"origin": "http://evil.example"}, 403),
        ("OPTIONS", {"origin": "http://evil.example", "access-control-request-method": "POST"}, 403),
    ],
)
def test_other_origins(method: str, headers: dict[str, str], status: int, tmp_path: Path) -> None:
    made = Guard(page, ["here"], tmp_path)
    path = EVENT if method == "POST" else "/config"
    found, said = ask(made, method, path, host="here:7860", **headers)
    assert found == status, said


def test_a_program_of_another_origin_is_not_told(running: RunningPage) -> None:
    """Whoever visits another page lets its script ask, and must not let it read or add."""
    for head in ("GET /config", "POST /gradio_api/upload", "OPTIONS /gradio_api/queue/join"):
        status, said = raw(
            running.url, f"{head} HTTP/1.1\nHost: localhost\nOrigin: http://evil.example\nContent-Length: 0"
        )
        assert status == 403 and "evil.example; accepted: from the page itself" in said


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /gradio_api/file=http://127.0.0.1:1/x", 404),
        ("GET /gradio_api/file={uploaded}", 404),
        ("GET /gradio_api/file/{uploaded}", 404),
        ("GET /gradio_api/file=/etc/passwd", 404),
        ("GET /gradio_api/file=student/config.json", 404),
        ("GET /gradio_api%2Ffile={uploaded}", 404),
        ("GET //gradio_api/file={uploaded}", 404),
        ("GET /gradio_api/../gradio_api/file={uploaded}", 404),
        ("GET /gradio_api/proxy=https://a-b.hf.space/", 404),
        ("GET /gradio_api/deep_link?session_hash=a", 404),
        ("GET /gradio_api/stream/a/b/1/playlist-file", 404),
        ("GET /gradio_api/heartbeat/a/b", 404),
        ("GET /gradio_api/", 404),
        ("GET /monitoring/summary", 403),
        ("POST /gradio_api/run/search", 404),
        ("POST /gradio_api/api/search", 404),
        ("POST /gradio_api/call/search", 404),
        ("POST /gradio_api/call/v2/search", 404),
        ("POST /gradio_api/component_server", 404),
        ("POST /gradio_api/process_recording", 404),
        ("POST /gradio_api/vibe-edit", 404),
        ("POST /login", 404),
        ("PUT /gradio_api/upload", 405),
        ("DELETE /", 405),
    ],
)
def test_what_the_page_does_not_have(running: RunningPage, request_line: str, status: int) -> None:
    uploaded = Visitor(running.url).upload("own.txt", b"mine\n")
    line = request_line.format(uploaded=uploaded)
    found, said = raw(running.url, f"{line} HTTP/1.1\nHost: localhost\nContent-Length: 0")
    assert found == status and "mine" not in said


def test_large_bodies_are_not_read_into_memory(running: RunningPage) -> None:
    part = b"x" * 65536
    chunk = b"10000\r\n" + part + b"\r\n"
    for path, limit in [*BODIES.items(), ("/", 0), ("/gradio_api/run/add", 0)]:
        for name, length, parts in (
            ("declared", f"Content-Length: {MANY}", itertools.repeat(part, MANY // len(part))),
            ("not declared", "Transfer-Encoding: chunked", itertools.repeat(chunk, MANY // len(part))),
        ):
            method = "GET" if path == "/" else "POST"
            kind = FORM if path == UPLOAD else JSON
            before = peak_memory(running.process, reset=True)
            status, said = raw(running.url, f"{method} {path} HTTP/1.1\nHost: localhost\n{kind}\n{length}", parts)
            grown = peak_memory(running.process) - before
            assert grown < 16 * 1024 * 1024, (path, name)
            if path in BODIES or path == "/":
                assert status == 413 and f"accepted: at most {limit:,}" in said, (path, name)
    assert [path for path in running.uploads.rglob("*") if path.is_file() and path.stat().st_size > OWN_BYTES] == []


def test_lengths_that_lie(running: RunningPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _ = raw(
        running.url, f"POST {EVENT} HTTP/1.1\nHost: localhost\n{JSON}\nContent-Length: 2", [b"{}" + b"x" * 100_000]
    )
    assert status == 422  # what is said to be the body, and it lacks all fields
    for length in ("-1", "1e9", "2\nContent-Length: 3"):
        assert (
            raw(running.url, f"POST {EVENT} HTTP/1.1\nHost: localhost\n{JSON}\nContent-Length: {length}", [b"{}"])[0]
            == 400
        )
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(guard, "LINGER_SECONDS", 0.05)
    made = Guard(page, [], tmp_path)
    status, said = ask(made, "POST", EVENT, host="localhost", **{"content-length": "9"}, body=b"{}", whole=False)
    assert status == 408 and "accepted: within" in said


def test_what_a_browser_sends_at_most_is_read(running: RunningPage) -> None:
    """The box for lines counts characters: what it holds gets the page's own message, not a status."""
    visitor = Visitor(running.url)
    for text, message in (
        ("\N{CJK UNIFIED IDEOGRAPH-4E00}" * OWN_BYTES, "the pasted text has 786,432 bytes; accepted: at most 262,144"),
        ('"\n' * (OWN_BYTES // 2), "1 added, 131071 repeated; 1 in total."),
    ):
        done = visitor.send("add", "click", text, None, "Errands", "")
        assert message in done["output"]["data"][3]
    path = visitor.upload("own.txt", b"x" * 1000 + b"\n" + b"y\n" * ((OWN_BYTES - 1001) // 2))
    assert Path(path).stat().st_size == OWN_BYTES - 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"[" * 100_000, 400, "the event is not JSON"),
        (b"\xff", 400, "the event is not JSON"),
        (b"{}", 422, ""),
    ],
)
def test_events_that_are_none(running: RunningPage, body: bytes, status: int, message: str) -> None:
    head = f"POST {EVENT} HTTP/1.1\nHost: localhost\n{JSON}\nContent-Length: {len(body)}"
    found, said = raw(running.url, head, [body])
    assert found == status and message in said


def test_an_event_names_no_file_but_uploads(running: RunningPage, tmp_path: Path) -> None:
    visitor = Visitor(running.url)
    mine = Path(visitor.upload("own.txt", b"mine\n"))
    (tmp_path / "secret.txt").write_text("secret\n")
    climbing = f"{mine.parent}/{os.path.relpath(tmp_path / 'secret.txt', mine.parent)}"
    for file in (
        "https://example.org/own.txt",
        str(tmp_path / "secret.txt"),
        f"{mine.parents[1]}x/own.txt",
        climbing,
        3,
    ):
        for data in ([{"path": file, **FILE}, None], [[{"a": {"path": file, **FILE}}], "given", None]):
            body = json.dumps({"data": data, "fn_index": 0, "session_hash": "a"}).encode()
            head = f"POST {EVENT} HTTP/1.1\nHost: localhost\n{JSON}\nContent-Length: {len(body)}"
            status, said = raw(running.url, head, [body])
            assert status == 400 and "accepted: an upload" in said
    done = visitor.send("upload", "upload", {"path": str(mine), **FILE}, None, "Errands", "")
    assert "1 added; 1 in total." in done["output"]["data"][3]


def test_no_other_machine_is_asked(running: RunningPage) -> None:
    visitor = Visitor(running.url)
    visitor.send("search", "click", "the sponge for my drink", "Errands", "given", None)
    events = [line.split() for line in running.addresses.read_text().splitlines()]
    assert ["socket.bind", "127.0.0.1"] in events
    assert {host for _, host in events} <= {"127.0.0.1", "::1", "localhost"}


def test_headers_have_a_limit(running: RunningPage) -> None:
    place = urllib.parse.urlparse(running.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_there_are_no_web_sockets(running: RunningPage) -> None:
    head = "GET / HTTP/1.1\nHost: localhost\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13"
    assert raw(running.url, head + "\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")[0] == 200


def test_half_characters_get_a_message(running: RunningPage) -> None:
    visitor = Visitor(running.url)
    (html,) = visitor.send("search", "click", "my \ud83d drink", "Errands", "given", None)["output"]["data"]
    assert "the query holds half a character (&#x27;\\ud83d&#x27;, character 4); accepted: text without" in html
    done = visitor.send("add", "click", "a lamp\n\ud83d", None, "Errands", "")["output"]["data"]
    assert "the pasted text: document 2 holds half a character" in done[3]
    path = visitor.upload("own.jsonl", b'{"text": "\\udc00"}')
    done = visitor.send("upload", "upload", {"path": path, **FILE}, None, "Errands", "")["output"]["data"]
    assert "own.jsonl line 1: broken text (half of a surrogate pair" in done[3]


def peak_memory(process: int, reset: bool = False) -> int:
    """The most bytes a process has held since the last reset."""
    place = Path(f"/proc/{process}")
    if not (place / "clear_refs").exists():
        pytest.skip("this machine does not say what a process has held")
    if reset:
        (place / "clear_refs").write_text("5")
    (line,) = [line for line in (place / "status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def page(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(app: Guard, method: str, path: str, body: bytes = b"", whole: bool = True, **headers: str) -> tuple[int, str]:
    """Status and message of one request without a server."""
    scope = {"type": "http", "method": method, "path": path, "query_string": b""}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer: list[Any] = []
    left: Iterator[Any] = iter([{"type": "http.request", "body": body, "more_body": not whole}])

    async def receive() -> Any:
        for message in left:
            return message
        return await anyio.sleep_forever()

    async def send(message: Any) -> None:
        answer.append(message)

    anyio.run(app, scope, receive, send)
    return answer[0]["status"], b"".join(message.get("body", b"") for message in answer).decode()
