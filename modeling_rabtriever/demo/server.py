"""Runs the page on this machine or in a Space: one process, behind a guard, until it is interrupted."""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI

from . import rendering
from .collections import Collection
from .documents import OWN_BYTES
from .guard import ROOT_PATH, Guard
from .page import build_page, theme
from .uploads import no_folder, swept, upload_folder

FIRST_PORT, PORTS = 7860, 100
CONNECTIONS = 800  # at once; a browser opens up to six
ACCEPTED_HOSTS = "an address or a name of this machine"
END_SECONDS = 1  # for requests in progress when the page ends


def serve(collections: Sequence[Collection], host: str | None = None, port: int | None = None) -> None:
    """Runs the page until it is interrupted.

    Args:
        collections: what visitors choose from, as `read_collections` gives them; the page starts with the first.
        host: address or host name to listen on; `None` is `GRADIO_SERVER_NAME`, or 127.0.0.1, this machine only.
        port: `None` is `GRADIO_SERVER_PORT`, or the first free port from 7860.

    Raises:
        ValueError: as `build_page`; the port is invalid or taken, or the address is not this machine's.
    """
    host = (host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1").strip("[]")
    with closing(listen(host, port)) as listening, upload_folder() as uploads:
        address, taken = listening.getsockname()[:2]
        page = build_page(collections)
        server = _Server(
            uvicorn.Config(
                Guard(_app(page, uploads), (host, address), uploads),
                http="h11",  # bounds headers
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        shown = host
        if address in ("0.0.0.0", "::"):
            shown = "localhost"
        elif ":" in host:
            shown = f"[{host}]"
        print(f"rabtriever: open http://{shown}:{taken}/ (Ctrl+C ends it)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _app(page: gr.Blocks, uploads: Path) -> FastAPI:
    app = FastAPI(lifespan=lambda _: swept(uploads), openapi_url=None)
    try:
        return gr.mount_gradio_app(
            app,
            page,
            path="/",
            theme=theme(),
            css=rendering.STYLE,
            max_file_size=OWN_BYTES,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            footer_links=[],
            root_path=os.environ.get(ROOT_PATH),
        )
    except OSError as error:  # Gradio's shared temporary folder belongs to another user
        raise no_folder(error) from error


class _Server(uvicorn.Server):
    """Shuts down at once: browsers keep streams open as long as they show the page."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.server_state.connections:
            connection.transport.close()
        await super().shutdown(sockets)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that already listens, host and port as for `serve`: if two pages start at once, one gets the port.

    Raises:
        ValueError: the port is invalid, taken, or needs more rights; or the host is not this machine's.
    """
    ports = range(FIRST_PORT, FIRST_PORT + PORTS)
    given = os.environ.get("GRADIO_SERVER_PORT") if port is None else port
    if given is not None:
        if not (str(given).isdecimal() and 0 < int(given) < 65536):
            raise ValueError(f"the port is {given}; accepted: 1 to 65535")
        ports = range(int(given), int(given) + 1)
    try:
        # IPv4 first: "localhost" has both, and every machine has IPv4.
        family, *_, address = min(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), key=lambda found: found[0])
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the host is {host!r}, which is not found; accepted: {ACCEPTED_HOSTS}") from error
    for number in ports:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], number, *address[2:]))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            if error.errno == errno.EACCES:
                raise ValueError(f"port {number} is not open to this user; accepted: 1024 to 65535") from error
            if error.errno != errno.EADDRINUSE:
                reason = f"the page cannot listen on {host} ({error.strerror})"
                raise ValueError(f"{reason}; accepted: {ACCEPTED_HOSTS}") from error
    taken = f"port {ports[0]} is" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]} are"
    raise ValueError(f"{taken} taken on {host}; accepted: a free port")
