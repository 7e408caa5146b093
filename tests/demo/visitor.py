"""A visitor without a browser: the page's events as its script sends them, and raw requests."""

import json
import socket
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable
from typing import Any


class Visitor:
    """One session of a page."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, uuid.uuid4().hex
        with urllib.request.urlopen(f"{url}config") as answer:
            config = json.load(answer)
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self._events = {
            (names.get(target), event): dependency["id"]
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }

    def send(self, element: str, event: str, *data: Any) -> dict[str, Any]:
        """The last message about an event: `{"msg": "process_completed", "success": ..., "output": ...}`."""
        content = {"data": data, "fn_index": self._events[element, event], "session_hash": self.session}
        body = json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")  # as JSON.stringify writes it
        request = urllib.request.Request(f"{self.url}gradio_api/queue/join", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            id_ = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{self.url}gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == id_:
                    return message
        raise AssertionError("the stream ended before the event did")

    def upload(self, name: str, content: bytes) -> str:
        """The path of an uploaded file."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        request = urllib.request.Request(
            f"{self.url}gradio_api/upload",
            head + content + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        with urllib.request.urlopen(request) as answer:
            (path,) = json.load(answer)
        return path


def raw(url: str, head: str, body: Iterable[bytes] = ()) -> tuple[int, str]:
    """Status and content of the answer to a request as it is written down, while parts of its body are sent.

    Whoever answers early is heard: sending stops when the other end does not take any more.
    """
    place = urllib.parse.urlparse(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        try:
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            for part in body:
                connection.sendall(part)
        except OSError:
            pass
        answer = b""
        while part := connection.recv(65536):
            answer += part
            top, _, content = answer.partition(b"\r\n\r\n")
            lengths = [line for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths and len(content) >= int(lengths[0].split(b":")[1]):
                break
    return int(answer.split(b" ", 2)[1]), content.decode()
