"""A small OpenAI-compatible server over real HTTP whose answers a reranker computes, and which can be made to fail."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from modeling_rabtriever import GenerativeRerankerModel

Change = Callable[[dict[str, Any]], Any]
DROPPED = 0  # in place of a status: the connection ends in the middle of the answer


class CompletionServer:
    """Answers `models` and `completions` as vLLM does (`form` is "legacy") or as llama.cpp does ("content").

    Args:
        reranker: whose backbone gives the log probabilities.
        form: of the log probabilities.
    """

    def __init__(self, reranker: GenerativeRerankerModel, form: str = "legacy") -> None:
        self.reranker, self.form = reranker, form
        self.models: list[dict[str, Any]] = [{"id": "judge", "root": "org/judge"}]
        self.prompts: list[tuple[int, ...]] = []  # that were answered, but for those asked again with a bias
        self.requests: list[dict[str, Any]] = []
        self.key: str | None = None
        self.top = 20  # log probabilities that it gives at most
        self.biased = False  # whether its log probabilities follow logit_bias
        self.heeds_bias = True
        self.names_ids = True
        self.seconds = 0.0  # that it takes for an answer
        self.busiest = 0  # requests at once
        self.change: Change | None = None  # of an answer before it is sent
        self._faults: list[tuple[int, dict[str, str]]] = []
        self._after, self._under_way, self._lock = 0, 0, threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, status: int, times: int = 1, after: int = 0, **headers: str) -> None:
        """After `after` requests for completions, the next `times` get this status, or `DROPPED`."""
        self._faults += [(status, headers)] * times
        self._after = after

    def fault(self) -> tuple[int, dict[str, str]] | None:
        with self._lock:
            if self._after:
                self._after -= 1
                return None
            return self._faults.pop(0) if self._faults else None

    def complete(self, body: dict[str, Any]) -> Any:
        with self._lock:
            self._under_way += 1
            self.busiest = max(self.busiest, self._under_way)
        time.sleep(self.seconds)
        with self._lock:
            self._under_way -= 1
            choices = [self._choice(row, prompt, body) for row, prompt in enumerate(body["prompt"])]
            self.prompts += [] if "logit_bias" in body else [tuple(prompt) for prompt in body["prompt"]]
            self.requests.append(body)
        usage = {"prompt_tokens": sum(map(len, body["prompt"]))}
        answer = {"object": "text_completion", "model": body["model"], "choices": choices[::-1], "usage": usage}
        return answer if self.change is None else self.change(answer)

    @torch.no_grad()
    def _choice(self, row: int, prompt: Sequence[int], body: dict[str, Any]) -> dict[str, Any]:
        logits = self.reranker.backbone(input_ids=torch.tensor([prompt])).logits[0, -1].float()
        biased = logits.clone()
        for token, bias in body.get("logit_bias", {}).items() if self.heeds_bias else ():
            biased[int(token)] += bias
        chosen = int(biased.argmax())
        logprobs = (biased if self.biased else logits).log_softmax(-1)
        best = logprobs.topk(min(body["logprobs"], self.top, len(logprobs))).indices.tolist()
        by_id = self.names_ids and body.get("return_tokens_as_token_ids", False)
        names = {token: f"token_id:{token}" if by_id else self._text(token) for token in {chosen, *best}}
        values = {token: float(logprobs[token]) for token in names}
        if self.form == "legacy":
            found: Any = {"tokens": [names[chosen]], "token_logprobs": [values[chosen]]}
            found["top_logprobs"] = [{names[token]: values[token] for token in best}]
        else:
            ids = {token: {"id": token} if self.names_ids else {} for token in names}
            entries = {token: {**ids[token], "token": self._text(token), "logprob": values[token]} for token in names}
            found = {"content": [{**entries[chosen], "top_logprobs": [entries[token] for token in best]}]}
        return {"index": row, "text": self._text(chosen), "logprobs": found, "finish_reason": "length"}

    def _text(self, token: int) -> str:
        return str(self.reranker.processor.tokenizer.decode([token]))


def _handler(server: CompletionServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(lambda: {"object": "list", "data": server.models}, "/v1/models")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fault = server.fault()
            if fault is None:
                self._answer(lambda: server.complete(body), "/v1/completions")
            elif fault[0] == DROPPED:
                self._send(200, json.dumps(server.complete(body)).encode(), cut=True)
            else:
                self._send(fault[0], b'{"error": {"message": "not now"}}', **fault[1])

        def _answer(self, make: Callable[[], Any], place: str) -> None:
            if server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
                self._send(401, f"wrong key: {self.headers.get('Authorization')}".encode())
            elif self.path != place:
                self._send(404, b"not found")
            else:
                made = make()
                self._send(200, made if isinstance(made, bytes) else json.dumps(made).encode())

        def _send(self, status: int, content: bytes, cut: bool = False, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

        def log_message(self, *given: Any) -> None:
            pass

    return Handler
