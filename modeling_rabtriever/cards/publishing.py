"""Publishes a model folder: checks it, pushes it to the Hub as one commit, and tags the commit.

This pushes the weights, model code, processor, card, reports and plots in the folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # which it only imports
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from ..files import write_text
from .licenses import fill_licenses
from .release_checks import card_data, check_card, check_loading, expected, load_card, release_files

TAG = re.compile(r"v\d+\.\d+(\.\d+)?")


@dataclass(frozen=True)
class Release:
    """The result of a push.

    Args:
        repo: id of the repository.
        commit: the commit that holds the folder.
        new: whether this call created it.
        url: of the pull request, if there is one, or of the commit.
    """

    repo: str
    commit: str
    new: bool
    url: str


def release(
    folder: str | Path,
    repo: str,
    licenses: Mapping[str, str] | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    tag: str | None = None,
) -> Release:
    """Checks a model folder and publishes it. Writes licences and the name of the repository into the folder's card.

    The check loads the folder in a process WITHOUT this package and runs the Python files in it: release only folders
    you made yourself. A second call pushes only what has changed since.

    Args:
        folder: `<run>/teacher/model` or `<run>/student/model`, with its card.
        repo: `org/name` on the Hub; created if it does not exist.
        licenses: `model`, `base_model`, `data` -> identifier of the Hub or `other:NAME`; others keep their value.
        private: whether a new repository is private; `None` leaves it to the organisation.
        create_pr: open a pull request instead of committing to main.
        tag: `vX.Y` or `vX.Y.Z` for this release; an existing tag is never moved.

    Raises:
        ValueError: the folder, its card, the name of the repository or the tag is unusable, or the Hub refuses the
        token. HfHubHTTPError, RuntimeError: the Hub or its storage of large files failed; call it again to continue.

    Examples:
        >>> release("runs/mine/student/model", "org/name", {"model": "apache-2.0"}, tag="v1.0")  # doctest: +SKIP
    """
    folder = Path(folder)
    check_target(repo, tag, create_pr)
    files = release_files(folder)
    card = load_card(folder)
    fill_licenses(card, licenses or {})
    name_card(card, repo)
    write_text(folder / "README.md", str(card))
    check_card(folder)
    check_loading(folder)
    return push(folder, files, repo, private, create_pr, tag)


def check_target(repo: str, tag: str | None, create_pr: bool) -> None:
    """Raises a ValueError if the repository's name or the tag cannot be used."""
    if repo.count("/") != 1:
        raise ValueError(f"repo is {repo!r}; accepted: org/name")
    validate_repo_id(repo)
    if tag is not None and not TAG.fullmatch(tag):
        raise ValueError(f"tag is {tag!r}; accepted: vX.Y or vX.Y.Z, such as v1.0")
    if tag is not None and create_pr:
        raise ValueError(f"tag is {tag!r} with create_pr; accepted: a tag once the pull request is merged")


def name_card(card: ModelCard, repo: str) -> None:
    """Replaces the model's name in the title and examples of a card by the id of the repository."""
    data = card_data(card)
    name = data.model_name
    if not name:
        raise ValueError("the card has no model_name; accepted: a card that rabtriever card RUN wrote")
    card.text = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", repo, card.text)
    data.model_name = repo


def push(
    folder: Path,
    files: Sequence[str],
    repo: str,
    private: bool | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    api: HfApi | None = None,
) -> Release:
    """Pushes the folder as one commit, or as none if the repository already holds it.

    Deletes files of an earlier release that the folder no longer has; keeps files that releases do not write. An open
    pull request with the same content is used again. The other settings are those of `release`.

    Raises:
        ValueError: the tag belongs to another commit, or the Hub refuses the token.
        HfHubHTTPError: the Hub failed, or somebody else pushed at the same time; the repository is unchanged.
        RuntimeError: the Hub's storage of large files failed; the repository is unchanged.
    """
    api = api or HfApi()
    try:
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        head = _head(api, repo)
        changed, gone = _differences(api, repo, head, folder, files)
        if tag is not None:
            _check_tag(api, repo, tag, None if changed or gone else head)
        release = Release(repo, head, False, f"{api.endpoint}/{repo}/commit/{head}")
        if changed or gone:
            message = f"Release {tag}" if tag else "Release"
            opened = _open_pull_request(api, repo, folder, files) if create_pr else None
            release = opened or _commit(api, repo, folder, changed, gone, head, create_pr, message)
        if tag is not None:
            api.create_tag(repo, tag=tag, revision=release.commit, exist_ok=True)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ValueError(
                f"the Hub refuses the token for {repo}; accepted: a token that may write there, in HF_TOKEN or from "
                f"`hf auth login` ({error})"
            ) from error
        raise
    return release


def _commit(
    api: HfApi, repo: str, folder: Path, changed: list[str], gone: list[str], head: str, create_pr: bool, message: str
) -> Release:
    # Not upload_folder, which may split a large folder into several commits if its fast path is installed.
    made = api.create_commit(
        repo,
        [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in changed),
            *(CommitOperationDelete(path_in_repo=name) for name in gone),
        ],
        commit_message=message,
        create_pr=create_pr,
        parent_commit=head,  # fails if the repository has changed since the comparison
    )
    return Release(repo, made.oid, True, made.pr_url or made.commit_url)


def _open_pull_request(api: HfApi, repo: str, folder: Path, files: Sequence[str]) -> Release | None:
    found = api.get_repo_discussions(repo, discussion_type="pull_request", discussion_status="open")
    for request in found:
        head = _head(api, repo, request.git_reference)
        if _differences(api, repo, head, folder, files) == ([], []):
            return Release(repo, head, False, request.url)
    return None


def _head(api: HfApi, repo: str, revision: str | None = None) -> str:
    return cast("str", api.repo_info(repo, revision=revision).sha)  # only listings leave it out


def _check_tag(api: HfApi, repo: str, tag: str, commit: str | None) -> None:
    """Refuses an existing tag, unless it belongs to `commit`; `None` stands for a new commit."""
    for known in api.list_repo_refs(repo).tags:
        if known.name == tag and known.target_commit != commit:
            raise ValueError(
                f"tag {tag} of {repo} is commit {known.target_commit}, which holds other files; accepted: a new tag"
            )


def _differences(
    api: HfApi, repo: str, revision: str, folder: Path, files: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Files of the folder that the revision lacks, and release files of the revision that the folder lacks."""
    tree = api.list_repo_tree(repo, recursive=True, revision=revision)
    remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    changed = [name for name in files if name not in remote or not _same(folder / name, remote[name])]
    return changed, [name for name in remote if expected(name) and name not in files]


def _same(path: Path, remote: RepoFile) -> bool:
    """Whether a file equals the one on the Hub, by the Hub's digest: SHA-256 for large files, git's hash for others."""
    if path.stat().st_size != remote.size:
        return False
    if remote.lfs is None:
        return git_hash(path.read_bytes()) == remote.blob_id
    with path.open("rb") as file:
        return sha_fileobj(file).hex() == remote.lfs.sha256
