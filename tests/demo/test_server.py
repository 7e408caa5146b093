"""The page's process: where it listens, what it keeps of its visitors, and what it leaves behind."""

import errno
import os
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.demo import Collection, serve
from modeling_rabtriever.demo.server import listen
from modeling_rabtriever.demo.uploads import FOLDER, SESSION_SECONDS, SWEEP_SECONDS, remove_old, upload_folder
from modeling_rabtriever.retrieval import Document
from tests.demo.conftest import page_process
from tests.demo.visitor import Visitor, raw

SECONDS = 5  # what an hour is here
SHORT = f"""
from modeling_rabtriever.demo import page, read_collections, serve, server, uploads

page.SESSIONS, page.SESSION_SECONDS, server.CONNECTIONS = 2, {SECONDS}, 20
uploads.SESSION_SECONDS, uploads.SWEEP_SECONDS, uploads.MOST_FILES = {SECONDS}, 0.2, 3
serve(read_collections("collections.yaml"))
"""
FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def process(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any, Path]]:
    """A page whose hours are seconds: its address, its process, and the folder it writes to."""
    watched = tmp_path_factory.mktemp("short")
    with page_process(["-c", SHORT], space, watched) as (url, process):
        yield url, process, watched


@pytest.fixture
def short(process: tuple[str, Any, Path]) -> tuple[str, Path]:
    """The address of that page, and its folder of uploads."""
    url, _, watched = process
    return url, only(watched / "uploads")


def only(folder: Path) -> Path:
    (found,) = folder.glob("rabtriever-*")
    return found


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def soon(happens: Callable[[], bool], seconds: float = 5 * SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)
    return happens()


def test_an_upload_nobody_reads_is_removed_in_time(short: tuple[str, Path]) -> None:
    url, folder = short
    path = Path(Visitor(url).upload("own.txt", b"mine\n"))
    assert path.read_bytes() == b"mine\n" and path.is_relative_to(folder)
    assert soon(lambda: not path.exists())
    assert soon(lambda: list(folder.iterdir()) == [])


def test_an_upload_is_removed_when_it_was_read(short: tuple[str, Path]) -> None:
    url, folder = short
    visitor = Visitor(url)
    path = Path(visitor.upload("own.txt", b"mine\n"))
    done = visitor.send("upload", "upload", {"path": str(path), **FILE}, None, "Errands", "")
    assert "1 added; 1 in total." in done["output"]["data"][3]
    assert not path.exists()
    assert soon(lambda: list(folder.iterdir()) == [])  # Gradio leaves an empty file for each that is read
    done = visitor.send("upload", "upload", {"path": str(path), **FILE}, None, "Errands", "")
    assert "own.txt is gone; accepted: upload it again" in done["output"]["data"][3]


def test_no_upload_gets_older_than_a_session(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("old", SESSION_SECONDS - SWEEP_SECONDS + 5), ("new", SESSION_SECONDS - SWEEP_SECONDS - 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.txt").touch()
        os.utime(tmp_path / name / "own.txt", (now - age, now - age))
    remove_old(tmp_path)  # the next is in SWEEP_SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_half_an_upload_leaves_nothing(short: tuple[str, Path]) -> None:
    url, folder = short
    place = urllib.parse.urlparse(url)
    assert soon(lambda: files(folder) == [])
    with socket.create_connection((place.hostname, place.port)) as connection:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        form = '--x\r\nContent-Disposition: form-data; name="files"; filename="own.txt"\r\n\r\nmine'
        connection.sendall((head + form).encode())
        time.sleep(0.2)
        assert files(folder) == []
    time.sleep(0.2)
    assert files(folder) == []


def test_many_uploads_push_out_the_oldest(short: tuple[str, Path]) -> None:
    url, folder = short
    visitor = Visitor(url)
    paths = []
    for number in range(5):
        paths.append(Path(visitor.upload(f"{number}.txt", b"mine %d\n" % number)))
        time.sleep(0.02)
    assert soon(lambda: len(files(folder)) <= 3)
    assert not paths[0].exists() and not paths[1].exists()


def test_a_sessions_documents_are_dropped(short: tuple[str, Path]) -> None:
    url, _ = short

    def search(visitor: Visitor) -> str:
        return str(visitor.send("search", "click", "a lamp", "Errands", "own", None)["output"]["data"])

    visitors = [Visitor(url) for _ in range(3)]
    for visitor in visitors:
        visitor.send("add", "click", "a lamp", None, "Errands", "")
    assert "You have no documents" in search(visitors[0])  # two have pushed it out
    visitors[2].send("add", "click", "a lantern", None, "Errands", "")
    assert "a lantern" in search(visitors[2])
    assert soon(lambda: "You have no documents" in search(visitors[2]))


def test_a_visitors_documents_are_ranked_by_the_chosen_student(short: tuple[str, Path]) -> None:
    visitor = Visitor(short[0])
    visitor.send("add", "click", "a lamp\na ladder", None, "Errands", "")
    for name in ("Errands", "Top shelf"):  # without the event of the choice, which a client may leave out
        (html,) = visitor.send("search", "click", "a lamp", name, "own", None)["output"]["data"]
        assert "Ranking of Rabtriever" in html and html.count("a ladder") == 2 + (name == "Errands")
    visitor.send("collection", "input", "Top shelf", "own", None, "")
    done = visitor.send("add", "click", "a cup", None, "Top shelf", "")
    assert "1 added; 3 in total." in done["output"]["data"][3]


def test_connections_have_a_limit(short: tuple[str, Path]) -> None:
    url, _ = short
    place = urllib.parse.urlparse(url)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(socket.create_connection((place.hostname, place.port)))
        status, _ = raw(url, "GET /config HTTP/1.1\nHost: localhost")
        assert status == 503
    assert soon(lambda: raw(url, "GET /config HTTP/1.1\nHost: localhost")[0] == 200)


def test_a_signal_ends_the_page(process: tuple[str, Any, Path]) -> None:
    assert end(*process, signal.SIGTERM) == -signal.SIGTERM


@pytest.mark.slow
def test_ctrl_c_ends_the_page(space: Path, tmp_path: Path) -> None:
    with page_process(["app.py"], space, tmp_path) as (url, process):
        assert end(url, process, tmp_path, signal.SIGINT) == 0


def end(url: str, process: "subprocess.Popen[bytes]", watched: Path, sent: signal.Signals) -> int:
    """The status of a page that gets a signal while a visitor is there; it leaves nothing and says nothing."""
    visitor = Visitor(url)
    assert Path(visitor.upload("own.txt", b"mine\n")).is_relative_to(only(watched / "uploads"))
    # What a browser holds open for as long as its page is shown.
    with urllib.request.urlopen(f"{url}gradio_api/heartbeat/{visitor.session}") as stream:
        assert stream.readline() == b"data: ALIVE\n"
        process.send_signal(sent)
        status = process.wait(20)
    assert [path.name for path in (watched / "uploads").rglob("*")] == ["vibe_edit_history"]  # Gradio's, for nothing
    log = (watched / "log").read_text()
    assert "Traceback" not in log and "ERROR" not in log, log
    return status


def test_the_folder_of_uploads_is_the_pages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "all"))
    with upload_folder() as folder:
        assert os.environ[FOLDER] == str(folder) and folder.parent == tmp_path / "all"
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "own.txt").write_text("mine")
    assert os.environ[FOLDER] == str(tmp_path / "all") and list((tmp_path / "all").iterdir()) == []
    monkeypatch.delenv(FOLDER)
    with upload_folder():
        pass
    assert FOLDER not in os.environ
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"uploads cannot be kept in .*file \(.*accepted: a folder that can be"):
        upload_folder().__enter__()


def test_of_two_pages_one_gets_the_port() -> None:
    with closing(listen("127.0.0.1", free_port())) as first:
        host, port = first.getsockname()
        with pytest.raises(ValueError, match=f"port {port} is taken on {host}; accepted: a free port"):
            listen("127.0.0.1", port)


def test_the_first_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    port = free_port()
    monkeypatch.setattr("modeling_rabtriever.demo.server.FIRST_PORT", port)
    monkeypatch.setattr("modeling_rabtriever.demo.server.PORTS", 2)
    with closing(listen("localhost", None)) as first:
        assert first.getsockname() == ("127.0.0.1", port)
        with closing(listen("localhost", None)) as second:
            assert second.getsockname()[1] == port + 1
            with pytest.raises(ValueError, match=f"ports {port} to {port + 1} are taken"):
                listen("localhost", None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lamps(student: RabtrieverModel) -> list[Collection]:
    return [Collection("lamps", student, [Document("a", "a lamp")])]


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 0, "the port is 0; accepted: 1 to 65535"),
        ("127.0.0.1", -1, "the port is -1; accepted: 1 to 65535"),
        ("127.0.0.1", 65536, "the port is 65536; accepted: 1 to 65535"),
        ("no.such.host.invalid", None, "the host is 'no.such.host.invalid', which is not found; accepted: an address"),
        ("a..b", None, "the host is 'a..b', which is not found; accepted: an address"),
        ("192.0.2.1", None, r"the page cannot listen on 192\.0\.2\.1 \(.*\); accepted: an address or a name of this"),
    ],
)  # fmt: skip
def test_places_that_are_none(host: str, port: int | None, message: str, student: RabtrieverModel) -> None:
    with pytest.raises(ValueError, match=message):
        serve(lamps(student), host=host, port=port)


def test_ports_of_the_environment(student: RabtrieverModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "web")
    with pytest.raises(ValueError, match="the port is web; accepted: 1 to 65535"):
        serve(lamps(student))


def test_ports_of_the_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: Any, address: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("modeling_rabtriever.demo.server.socket.socket.bind", bind, raising=False)
    with pytest.raises(ValueError, match="port 80 is not open to this user; accepted: 1024 to 65535"):
        listen("127.0.0.1", 80)
