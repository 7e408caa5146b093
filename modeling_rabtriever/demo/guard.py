"""Guards the page: who gets an answer, what a request may ask for, and how much of its body is read."""

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
LINGER_SECONDS = 5  # a refused body is still read and dropped: closing at once would lose the answer
ROOT_PATH = "GRADIO_ROOT_PATH"  # the page's path or whole address behind a proxy
API = "/gradio_api/"
UPLOAD, EVENT = f"{API}upload", f"{API}queue/join"
# Path -> bytes that a visitor may send; none to any other path.
BODIES = {
    UPLOAD: OWN_BYTES + 16 * 1024,  # a file and the form around it
    EVENT: 3 * OWN_BYTES + 64 * 1024,  # the text box counts characters, of up to three bytes
    f"{API}cancel": 4096,
    f"{API}reset": 4096,
}
# The other paths that the page's own script requests. The rest of Gradio's API serves files of this machine, fetches
# foreign addresses, and calls models without the queue.
ASKED = re.compile(rf"{API}(app_id|info|queue/data|upload_progress|theme\.css|heartbeat/[^/]+)")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """An ASGI middleware: a refused request gets a status, and a message as `{"detail": ...}`.

    400: the Host header is not an address of the page, a sign of DNS rebinding, or an event names a file that was not
    uploaded. 403: the request comes from a page of another origin. 404 and 405: the page has no such path or method.
    408 and 413: the body does not arrive in time or is too large; nothing of it is kept.

    `hosts` are the page's addresses and names, `uploads` is the folder of uploaded files.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], uploads: Path) -> None:
        self.app, self.uploads = app, uploads
        self.hosts = {_host_name(host) for host in hosts} | {"127.0.0.1", "localhost", "[::1]"}
        # A Space is requested by SPACE_HOST, perhaps with a domain of its own; other proxies may give a root path.
        names = [*os.environ.get("SPACE_HOST", "").split(","), urlsplit(os.environ.get(ROOT_PATH, "")).hostname or ""]
        self.hosts |= {name.strip().lower() for name in names if name.strip()}
        # DNS rebinding needs a name, so every address is safe to answer, and so is the machine's own name.
        self.any_address = not self.hosts.isdisjoint({"0.0.0.0", "[::]"})
        if self.any_address:
            self.hosts.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the page answer it."""
        if scope["type"] != "http":  # startup and shutdown: the server has no web sockets
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
        if site == "same-origin":  # only browsers can set this header
            return
        if (origin and origin.partition("://")[2] != host) or not (reads or site in (None, "none")):
            raise _RefusedError(403, f"the request comes from {origin or site}; accepted: from the page itself")

    def _check_event(self, body: bytes) -> None:
        try:
            left = [json.loads(body)]
        except (ValueError, RecursionError):
            raise _RefusedError(400, "the event is not JSON; accepted: an object") from None
        while left:
            value = left.pop()
            if isinstance(value, dict):
                file = value.get("path")  # Gradio downloads what looks like an address
                if file is not None and not self._is_upload(file):
                    raise _RefusedError(400, f"the event names the file {str(file)[:200]!r}; accepted: an upload")
                left += value.values()
            elif isinstance(value, list):
                left += value

    def _is_upload(self, file: Any) -> bool:
        return isinstance(file, str) and os.path.normpath(file).startswith(f"{self.uploads}{os.sep}")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _host_name(host: str) -> str:
    """A name in lower case, or an address in its canonical form, IPv6 in brackets."""
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
                raise _RefusedError(400, "the request ends early; accepted: a complete request")
            body += message.get("body", b"")
            if len(body) > limit:
                raise _RefusedError(413, f"the request has too many bytes; accepted: at most {limit:,}")
            if not message.get("more_body", False):
                break
    if time.cancelled_caught:
        raise _RefusedError(408, f"the request was not complete; accepted: within {BODY_SECONDS} seconds")
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
