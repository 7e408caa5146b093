"""What stands before the page: who is answered, what may be asked, and how much is read of it."""

import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .documents import OWN_BYTES
from .uploads import remove_old

BODY_SECONDS = 60  # for a body to arrive
LINGER_SECONDS = 5  # a refused body is read on, unkept: closed at once, the connection would lose the answer
ROOT_PATH = "GRADIO_ROOT_PATH"  # where a proxy shows the page: a path, or a whole address
API = "/gradio_api/"
UPLOAD, EVENT = f"{API}upload", f"{API}queue/join"
# Bytes a visitor may send, by path; everywhere else none.
BODIES = {
    UPLOAD: OWN_BYTES + 16 * 1024,  # a file and the form around it
    EVENT: 3 * OWN_BYTES + 64 * 1024,  # the box for lines counts characters, of up to three bytes
    f"{API}cancel": 4096,
    f"{API}reset": 4096,
}
# What else the page's own script asks Gradio for. The rest of its interface serves files of this machine, fetches
# addresses of others, and calls models past the queue.
ASKED = re.compile(rf"{API}(app_id|info|queue/data|upload_progress|theme\.css|heartbeat/[^/]+)")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """An ASGI middleware: what it does not let through gets a status, and a message as `{"detail": ...}`.

    400: the Host header names no address of the page, which is how DNS rebinding shows; or an event names a file that
    was not uploaded. 403: a page of another origin asks. 404 and 405: nothing of the page's. 408 and 413: the body does
    not arrive, or is larger than what a visitor may send; of such a body nothing is kept.

    Args:
        app: the page.
        hosts: addresses and names that it serves.
        uploads: the folder of uploaded files.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], uploads: Path) -> None:
        self.app, self.uploads = app, uploads
        self.hosts = {_host_name(host) for host in hosts} | {"127.0.0.1", "localhost", "[::1]"}
        # A Space has the name that its proxy asks for, and perhaps a domain of its own; others may say their address.
        names = [*os.environ.get("SPACE_HOST", "").split(","), urlsplit(os.environ.get(ROOT_PATH, "")).hostname or ""]
        self.hosts |= {name.strip().lower() for name in names if name.strip()}
        # Rebinding needs a name, so all addresses of this machine can be answered, and what it calls itself.
        self.any_address = not self.hosts.isdisjoint({"0.0.0.0", "[::]"})
        if self.any_address:
            self.hosts.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the page answer it."""
        if scope["type"] != "http":  # the server has no web sockets: this is its start and end
            await self.app(scope, receive, send)
            return
        try:
            body = await self._checked(scope, receive)
        except _RefusedError as refused:
            await _answer(refused, scope, receive, send)
            return
        try:
            await self.app(scope, receive if body is None else _replayed(body, receive), send)
        finally:
            if scope["path"].rstrip("/") == UPLOAD:
                await anyio.to_thread.run_sync(remove_old, self.uploads)

    async def _checked(self, scope: Scope, receive: Receive) -> bytes | None:
        headers, path, method = Headers(scope=scope), scope["path"].rstrip("/"), scope["method"]
        self._check_sender(headers, reads=method in ("GET", "HEAD"))
        limit = 0
        if method == "POST" and path in BODIES:
            limit = BODIES[path]
        elif method not in ("GET", "HEAD", "POST"):
            raise _RefusedError(405, f"the method is {method}; accepted: GET, HEAD, POST")
        elif method == "POST" or (f"{path}/".startswith(API) and not ASKED.fullmatch(path)):
            raise _RefusedError(404, f"the page has no {path}")
        length = int(headers.get("content-length", 0))
        if length > limit:
            raise _RefusedError(413, f"the request has {length:,} bytes; accepted: at most {limit:,}")
        if not _has_body(scope):
            return None
        body = await _read(receive, limit)
        if path == EVENT:
            self._check_event(body)
        return body

    def _check_sender(self, headers: Headers, reads: bool) -> None:
        host = headers.get("host", "").lower()
        match = _HOST.fullmatch(host)
        name = "" if match is None else _host_name(match[1])
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            raise _RefusedError(400, f"the host is {host!r}; accepted: {', '.join(sorted(self.hosts))}")
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "").lower()
        if site == "same-origin":  # browsers alone write this header
            return
        if (origin and origin.partition("://")[2] != host) or not (reads or site in (None, "none")):
            raise _RefusedError(403, f"the request comes from {origin or site}; accepted: from the page itself")

    def _check_event(self, body: bytes) -> None:
        try:
            left = [json.loads(body)]
        except (ValueError, RecursionError):
            raise _RefusedError(400, "the event is no JSON; accepted: an object") from None
        while left:
            value = left.pop()
            if isinstance(value, dict):
                file = value.get("path")  # Gradio downloads what looks like an address
                if file is not None and not self._is_upload(file):
                    raise _RefusedError(400, f"the event names the file {str(file)[:200]!r}; accepted: an upload")
            left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()

    def _is_upload(self, file: Any) -> bool:
        return isinstance(file, str) and os.path.normpath(file).startswith(f"{self.uploads}{os.sep}")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _host_name(host: str) -> str:
    """A name in small letters, or an address in its one spelling, IPv6 in brackets."""
    host = host.lower()
    if not _is_address(host):
        return host
    address = ipaddress.ip_address(host.strip("[]"))
    return f"[{address}]" if address.version == 6 else str(address)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or int(headers.get("content-length", 0)) > 0


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    with anyio.move_on_after(BODY_SECONDS) as time:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _RefusedError(400, "the request ends early; accepted: a whole one")
            body += message.get("body", b"")
            if len(body) > limit:
                raise _RefusedError(413, f"the request has more bytes than it may; accepted: at most {limit:,}")
            if not message.get("more_body", False):
                break
    if time.cancelled_caught:
        raise _RefusedError(408, f"the request did not arrive whole; accepted: within {BODY_SECONDS} seconds")
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _answer(refused: _RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    content = json.dumps({"detail": str(refused)}).encode()
    fields: dict[str, Any] = {"content-type": "application/json", "content-length": len(content)}
    if _has_body(scope):
        fields["connection"] = "close"
    headers = [(name.encode(), str(value).encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    if _has_body(scope):
        with anyio.move_on_after(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})
