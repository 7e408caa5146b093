"""What the test's Hub holds: repositories, commits, references, large files. No HTTP here."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub.utils.sha import git_hash

LARGE = (".safetensors", ".png")  # what goes through LFS, as .gitattributes says on the Hub


class RefusedError(Exception):
    """An answer that is not 200: status, the Hub's error code, a message, what else the body says."""

    def __init__(self, status: int, code: str = "", message: str = "", **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, body


@dataclass(frozen=True)
class File:
    content: bytes
    large: bool

    @property
    def digest(self) -> str:
        """What the Hub tells a client to compare with: git's digest, or the content's for a large file."""
        return hashlib.sha256(self.content).hexdigest() if self.large else git_hash(self.content)


@dataclass
class Repository:
    name: str
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)  # refs/pr/1 -> commit
    history: list[str] = field(default_factory=list)  # every commit ever made

    def add_commit(self, files: dict[str, File]) -> str:
        state = [(name, file.digest) for name, file in sorted(files.items())]
        sha = hashlib.sha1(json.dumps([self.name, len(self.history), state]).encode()).hexdigest()
        self.commits[sha] = files
        self.history.append(sha)
        return sha

    def resolve(self, revision: str) -> str:
        for known in (self.branches, self.tags, self.pulls):
            if revision in known:
                return known[revision]
        if revision not in self.commits:
            raise RefusedError(404, "RevisionNotFound", f"no revision {revision}")
        return revision

    def files(self, revision: str = "main") -> dict[str, File]:
        return self.commits[self.resolve(revision)]

    def tree(self, revision: str) -> list[dict[str, Any]]:
        entries = []
        for name, file in self.files(revision).items():
            entry = {"type": "file", "path": name, "size": len(file.content), "oid": git_hash(file.content)}
            if file.large:
                entry["lfs"] = {"oid": file.digest, "size": len(file.content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def refs(self) -> dict[str, Any]:
        def listed(found: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in found.items()]

        return {"branches": listed(self.branches, "heads"), "tags": listed(self.tags, "tags"), "converts": []}

    def add_ref(self, known: dict[str, str], name: str, revision: str) -> None:
        if name in known:
            raise RefusedError(409, "", f"{name} exists")
        known[name] = self.resolve(revision)

    def commit(self, revision: str, lines: list[dict[str, Any]], large: dict[str, bytes], pull: bool) -> str:
        """Applies the operations of one commit, all or none, to a branch or a new pull request."""
        head, *operations = lines
        parent = self.resolve(revision)
        if head["value"].get("parentCommit", parent) != parent:
            raise RefusedError(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(self.commits[parent])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif operation["key"] == "lfsFile" and value["oid"] in large:
                files[value["path"]] = File(large[value["oid"]], True)
            elif operation["key"] == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                raise RefusedError(400, "", f"{operation['key']} of {value['path']} is not possible")
        sha = self.add_commit(files)
        if pull:
            self.pulls[f"refs/pr/{len(self.pulls) + 1}"] = sha
        else:
            self.branches[revision] = sha
        return sha
