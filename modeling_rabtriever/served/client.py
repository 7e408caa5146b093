"""Requests to an OpenAI-compatible server: tried again when a fault may pass, one clear error when it does not."""

import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from .address import is_address

KEY = "RABTRIEVER_API_KEY"  # environment variable; a key is read from nowhere else and written nowhere
TRIES = 8  # of one request: about two minutes of waiting in all
LONGEST_WAIT = 60.0  # seconds between two tries
SILENT_SECONDS = 1.0  # after a warning of a try that failed; requests in flight fail together
CONNECT_SECONDS, ANSWER_SECONDS = 20.0, 600.0
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses of faults that may pass
_MESSAGE = 300  # characters of a server's own message that are shown
_ADDRESS = "the address of an OpenAI-compatible server up to its version, such as http://localhost:8000/v1"
_PROXIES = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"  # environment variables that the HTTP client reads
_log = logging.getLogger(__name__)


class _PassingError(Exception):
    """A fault after which the same request may succeed."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait  # seconds that the server asks for


class Client:
    """One server. Threads can share it.

    Args:
        url: the server's address up to its version.
        connections: that are open at once.

    Raises:
        ValueError: the address is none of a server, or holds a password or a question.
    """

    def __init__(self, url: str, connections: int) -> None:
        self.url = checked_address(url)
        self._key = os.environ.get(KEY, "").strip()
        self._warned, self._lock = -SILENT_SECONDS, threading.Lock()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"{KEY} holds a character that no header can; accepted: an API key")
        try:
            self._http = httpx2.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
                limits=httpx2.Limits(max_connections=connections),
            )
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:  # a proxy or certificates of no use
            raise ValueError(
                f"the environment's settings for HTTP cannot be used ({error}); accepted: in {_PROXIES} and NO_PROXY, "
                "addresses of proxies, or none; in SSL_CERT_FILE, a file of certificates, or none"
            ) from error
        weakref.finalize(self, self._http.close)

    def ask(self, place: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that the server answers: to a GET, or to a POST of `body`. A try that fails is logged.

        Raises:
            ValueError: the server refuses the request, or answers something else than a JSON object.
            ConnectionError: it does not answer, or is overloaded, after `TRIES` tries.
        """
        tries = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=stop_after_attempt(TRIES),
            wait=_waiting(wait_random_exponential(max=LONGEST_WAIT)),
            before_sleep=self._warn,
            reraise=True,
        )
        try:
            response: httpx2.Response = tries(self._once, f"{self.url}/{place}", body)
        except _PassingError as error:
            through = f" through the proxy that {_PROXIES} name" if _by_proxy(self.url) else ""
            raise ConnectionError(
                f"{self.url} gave no answer in {TRIES} tries{through} ({error}); run the same command again when the "
                "server answers"
            ) from error
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            raise ValueError(self._wrong("something else than JSON", response.text)) from None
        if not isinstance(answer, dict):
            raise ValueError(self._wrong("something else than a JSON object", response.text))
        return answer

    def _once(self, address: str, body: Mapping[str, Any] | None) -> httpx2.Response:
        try:
            response = self._http.get(address) if body is None else self._http.post(address, json=dict(body))
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _PassingError(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if status in PASSING:
            raise _PassingError(self._said(response), _seconds(response.headers.get("Retry-After")))
        if status in (401, 403):
            given = "is not accepted" if self._key else "is not set"
            raise ValueError(
                f"{self.url}: {self._said(response)}; accepted: the server's API key in {KEY}, which {given}"
            )
        if status >= 300:
            accepted = _ADDRESS if status < 400 or status in (404, 405) else "a server that accepts this request"
            raise ValueError(f"{self.url}: {self._said(response)}; accepted: {accepted}")
        return response

    def _warn(self, state: RetryCallState) -> None:
        with self._lock:
            if time.monotonic() - self._warned < SILENT_SECONDS:
                return
            self._warned = time.monotonic()
        error = state.outcome.exception() if state.outcome else None
        _log.warning(
            "%s gave no answer (%s); try %d of %d in %.0f s",
            self.url,
            error,
            state.attempt_number + 1,
            TRIES,
            state.upcoming_sleep,
        )

    def _said(self, response: httpx2.Response) -> str:
        return f"status {response.status_code}, {self._shown(response.text)!r}"

    def _wrong(self, what: str, text: str) -> str:
        return f"{self.url} answered {what} ({self._shown(text)!r}); accepted: {_ADDRESS}"

    def _shown(self, text: str) -> str:
        shown = " ".join(text.split())[:_MESSAGE]
        return shown.replace(self._key, "...") if self._key else shown  # some servers repeat a key they refuse


def checked_address(url: str) -> str:
    """The address of a server without a slash at its end.

    Raises:
        ValueError: it is none, or it holds a user, a password, a question or a fragment.
    """
    try:
        parts = urlsplit(url)
        whole = is_address(url) and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        whole = whole and " " not in url and bool(httpx2.URL(url).raw_host.decode().encode("idna"))
    except (ValueError, httpx2.InvalidURL):
        whole = False
    if not whole:
        shown = re.sub("//.*@", "//...@", url)  # perhaps a password
        raise ValueError(f"{shown!r} is no address; accepted: {_ADDRESS}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        raise ValueError(f"{shown} has more than host, port and path; accepted: {_ADDRESS}, with its key in {KEY}")
    return url.rstrip("/")


def _by_proxy(url: str) -> bool:
    """Whether the environment has a proxy for this address."""
    parts = urlsplit(url)
    return bool({parts.scheme.lower(), "all"} & getproxies().keys()) and not proxy_bypass(str(parts.hostname))


def _waiting(usual: Callable[[RetryCallState], float]) -> Callable[[RetryCallState], float]:
    """Waits as long as the server asks for, at least as usual, at most `LONGEST_WAIT`."""

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _PassingError) else 0.0
        return min(max(asked, usual(state)), LONGEST_WAIT)

    return wait


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # a date
        return 0.0
