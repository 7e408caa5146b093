"""A small Hub over real HTTP: what huggingface_hub and transformers ask it while models are pushed and loaded, and
data sets read.

Large files live under another host name (`localhost`), as on the Hub, where a download is redirected to a store that
gets no token. Requests can be made to fail, and downloads to end early.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.repositories import LARGE, File, RefusedError, Repository

TOKEN = "hf_writer"
NAME = r"([\w.-]+/[\w.-]+)"


class HubServer:
    """Repositories in memory, served on 127.0.0.1 until `close`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.leaked = False  # whether the store of large files was ever shown a token
        self._faults: list[list[Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        port = self._server.server_port
        self.url, self.store = f"http://127.0.0.1:{port}", f"http://localhost:{port}/store"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """The next `times` requests whose path matches are answered with `status` alone."""
        self._faults.append([method, re.compile(path), status, times])

    def truncate(self, path: str, times: int = 1) -> None:
        """The next `times` downloads whose path matches end after half of the file."""
        self._faults.append(["GET", re.compile(path), "truncate", times])

    def fault(self, method: str, path: str) -> Any:
        for fault in self._faults:
            if fault[0] == method and fault[1].search(path) and fault[3] > 0:
                fault[3] -= 1
                return fault[2]
        return None

    def repository(self, name: str, signed_in: bool = True) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and not signed_in):
            raise RefusedError(404, "RepoNotFound", "Repository not found")
        return found

    def count(self, method: str, path: str) -> int:
        """How many requests so far match."""
        return sum(seen == method and re.search(path, where) is not None for seen, where in self.requests)

    # One method per request; each returns the JSON answered.

    def create(self, body: dict[str, Any]) -> Any:
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            raise RefusedError(409, "", "You already created this model repo", url=f"{self.url}/{name}")
        made = self.repositories[name] = Repository(name, body.get("visibility") == "private")
        made.branches["main"] = made.add_commit({".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        return {"url": f"{self.url}/{name}"}

    def validate(self, body: dict[str, Any]) -> Any:
        found = re.match(r"---\n(.*?)\n---", body["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(found[1]) if found else None
        except yaml.YAMLError:
            metadata = None
        if not isinstance(metadata, dict):
            raise RefusedError(400, "", "metadata is no mapping")
        return {"errors": [], "warnings": []}

    def preupload(self, repository: Repository, revision: str, body: dict[str, Any]) -> Any:
        known = repository.files(revision)
        answers = []
        for file in body["files"]:
            name = file["path"]
            answer = {"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular", "shouldIgnore": False}
            answers.append(answer | ({"oid": known[name].digest} if name in known else {}))
        return {"files": answers}

    def batch(self, body: dict[str, Any]) -> Any:
        objects = []
        for item in body["objects"]:
            action = {"upload": {"href": f"{self.store}/{item['oid']}"}}
            objects.append(item | ({} if item["oid"] in self.large else {"actions": action}))
        return {"transfer": "basic", "objects": objects}

    def commit(self, repository: Repository, revision: str, lines: list[Any], pull: bool) -> Any:
        sha = repository.commit(revision, lines, self.large, pull)
        answer = {"commitOid": sha, "commitUrl": f"{self.url}/{repository.name}/commit/{sha}"}
        number = len(repository.pulls)
        return answer | ({"pullRequestUrl": f"{self.url}/{repository.name}/discussions/{number}"} if pull else {})

    def info(self, repository: Repository, revision: str) -> Any:
        sha = repository.resolve(revision)
        return {"id": repository.name, "sha": sha, "siblings": [{"rfilename": name} for name in repository.files(sha)]}

    def discussions(self, repository: Repository) -> Any:
        about = {"status": "open", "isPullRequest": True, "createdAt": "2026-01-01T00:00:00.000Z", "title": "Release"}
        about |= {"repo": {"name": repository.name, "type": "model"}, "author": {"name": "writer"}}
        found = [{**about, "num": number} for number in range(1, len(repository.pulls) + 1)]
        return {"discussions": found, "count": len(found), "start": 0}


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, path))
            fault = hub.fault(self.command, path)
            try:
                if isinstance(fault, int):
                    raise RefusedError(fault, "", "injected")
                if path.startswith("/store/"):
                    return self.stored(path.rpartition("/")[2], body, fault)
                token = self.headers.get("Authorization")
                writes = self.command == "POST" and path != "/api/validate-yaml"  # a card is looked at for anyone
                if token not in (None, f"Bearer {TOKEN}") or (token is None and writes):
                    raise RefusedError(401, "", "Invalid credentials in Authorization header")
                if found := re.fullmatch(rf"/(?:datasets/)?{NAME}/resolve/([^/]+)/(.+)", path):
                    repository = hub.repository(found[1], token is not None)
                    return self.download(repository, repository.resolve(found[2]), found[3], fault)
                self.answer(200, json.dumps(self.api(path, query, body, token is not None)).encode())
            except RefusedError as error:
                self.answer(
                    error.status,
                    json.dumps({"error": str(error), "errors": [{"message": str(error)}], **error.body}).encode(),
                    **({"X_Error_Code": error.code} if error.code else {}),
                    X_Error_Message=str(error),
                )

        def api(self, path: str, query: dict[str, list[str]], body: bytes, signed_in: bool) -> Any:
            method = self.command
            if (method, path) == ("POST", "/api/repos/create"):
                return hub.create(json.loads(body))
            if (method, path) == ("POST", "/api/validate-yaml"):
                return hub.validate(json.loads(body))
            if method == "POST" and (found := re.fullmatch(rf"/{NAME}\.git/info/lfs/objects/batch", path)):
                hub.repository(found[1])
                return hub.batch(json.loads(body))
            found = re.fullmatch(rf"/api/(?:models|datasets)/{NAME}(?:/([a-z]+)(?:/(.+))?)?", path)
            if found is None:
                raise RefusedError(404, "", f"nothing at {path}")
            repository, what, rest = hub.repository(found[1], signed_in), found[2], found[3] or "main"
            if method == "POST" and what == "preupload":
                return hub.preupload(repository, rest, json.loads(body))
            if method == "POST" and what == "commit":
                return hub.commit(repository, rest, [*map(json.loads, body.splitlines())], "create_pr" in query)
            if method == "POST" and what == "tag":
                return repository.add_ref(repository.tags, json.loads(body)["tag"], rest)
            if method == "POST" and what == "branch":
                return repository.add_ref(repository.branches, rest, json.loads(body).get("startingPoint", "main"))
            if method == "GET" and what in (None, "revision"):
                return hub.info(repository, rest)
            if method == "GET" and what == "tree":
                revision, _, folder = rest.partition("/")
                entries = [entry for entry in repository.tree(revision) if entry["path"].startswith(folder)]
                if not entries:
                    raise RefusedError(404, "EntryNotFound", f"no folder {folder}")
                return entries
            if method == "GET" and what == "refs":
                return repository.refs()
            if method == "GET" and what == "discussions":
                return hub.discussions(repository)
            raise RefusedError(404, "EntryNotFound", f"nothing at {path}")

        def download(self, repository: Repository, sha: str, name: str, fault: Any) -> None:
            file = repository.commits[sha].get(name)
            if file is None:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            about = {"X_Repo_Commit": sha, "ETag": f'"{file.digest}"'}
            if file.large:
                about |= {"X_Linked_Etag": f'"{file.digest}"', "X_Linked_Size": str(len(file.content))}
                return self.answer(302, Location=f"{hub.store}/{file.digest}", **about)
            return self.answer(200, file.content[: len(file.content) // 2] if fault else file.content, **about)

        def stored(self, digest: str, body: bytes, fault: Any) -> None:
            hub.leaked |= "Authorization" in self.headers
            if self.command == "PUT":
                if hashlib.sha256(body).hexdigest() != digest:
                    raise RefusedError(400, "", "other bytes than announced")
                hub.large[digest] = body
                return self.answer(200)
            content = hub.large[digest]
            return self.answer(200, content[: len(content) // 2] if fault else content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815  # names the base class calls

    return Handler
