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

from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_rabtriever import RabtrieverModel
from ..retrieval.documents import Document
from . import rendering
from .documents import OWN_BYTES
from .guard import ROOT_PATH, Guard
from .page import build_page, theme
from .uploads import no_folder, swept, upload_folder

FIRST_PORT, PORTS = 7860, 100
CONNECTIONS = 800  # at once; a browser holds up to six
PLACES = "an address or a name of this machine"
END_SECONDS = 1  # for what is being done when the page ends


def serve(
    student: RabtrieverModel,
    documents: Sequence[Document],
    teacher: GenerativeRerankerModel | None = None,
    examples: Sequence[str] = (),
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Runs the page until it is interrupted.

    Args:
        student: what is tried.
        documents: the corpus the page starts with.
        teacher: ranks beside the student.
        examples: queries to click.
        host: address to listen at, or a name of it; `None` is `GRADIO_SERVER_NAME`, or 127.0.0.1, this machine alone.
        port: `None` is `GRADIO_SERVER_PORT`, or the first free one from 7860 on.

    Raises:
        ValueError: as `build_page`; the port is none or taken, or the address is not this machine's.
    """
    host = (host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1").strip("[]")
    with closing(listen(host, port)) as listening, upload_folder() as uploads:
        address, taken = listening.getsockname()[:2]
        page = build_page(student, documents, teacher, examples)
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
        shown = "localhost" if address in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
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
    except OSError as error:  # the temporary folder of all pages of this machine is another user's
        raise no_folder(error) from error


class _Server(uvicorn.Server):
    """Ends at once: browsers hold streams open for as long as they show the page."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.server_state.connections:
            connection.transport.close()
        await super().shutdown(sockets)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens already: of two pages that start at once, one gets the port.

    Args:
        host: an address of this machine, or a name of it.
        port: `None` is `GRADIO_SERVER_PORT`, or the first free one from 7860 on.

    Raises:
        ValueError: the port is none, is taken, or needs more rights; or the host is none of this machine.
    """
    ports = range(FIRST_PORT, FIRST_PORT + PORTS)
    said = os.environ.get("GRADIO_SERVER_PORT") if port is None else port
    if said is not None:
        if not (str(said).isdecimal() and 0 < int(said) < 65536):
            raise ValueError(f"the port is {said}; accepted: 1 to 65535")
        ports = range(int(said), int(said) + 1)
    try:
        # IPv4 first: "localhost" has both, and every machine has that.
        family, *_, address = min(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), key=lambda found: found[0])
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the host is {host!r}, which is not found; accepted: {PLACES}") from error
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
                reason = f"the page cannot listen at {host} ({error.strerror})"
                raise ValueError(f"{reason}; accepted: {PLACES}") from error
    taken = f"port {ports[0]} is" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]} are"
    raise ValueError(f"{taken} taken at {host}; accepted: a free port")
