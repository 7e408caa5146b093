"""A Hub that refuses or fails while a model is pushed: the repository stays as it was, and calling again goes on."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from modeling_rabtriever.cards import publishing as release
from modeling_rabtriever.cards.release_checks import release_files
from tests.hub.repositories import File
from tests.hub.server import HubServer

# huggingface_hub 2.4 sends large files by a name its HTTP client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(finished_run: Path) -> Path:
    return finished_run / "teacher" / "model"


def test_a_wrong_token_is_refused(api: HfApi, hub: HubServer, folder: Path) -> None:
    stranger = HfApi(endpoint=hub.url, token="hf_stranger")
    with pytest.raises(ValueError, match="the Hub refuses the token for org/locked; accepted: .* HF_TOKEN"):
        release.push(folder, release_files(folder), "org/locked", api=stranger)
    assert "org/locked" not in hub.repositories


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "/repos/create", 503, HfHubHTTPError),
        ("POST", "/validate-yaml", 500, HfHubHTTPError),
        ("PUT", "/store/", 400, RuntimeError),
        ("POST", "/commit/main", 503, HfHubHTTPError),
        ("POST", "/tag/", 502, HfHubHTTPError),
    ],
)
def test_a_failed_push_leaves_the_repository_as_it_was(
    method: str, path: str, status: int, error: type[Exception], api: HfApi, folder: Path
) -> None:
    hub = HubServer()  # its own, with no large files yet
    api = HfApi(endpoint=hub.url, token=api.token)
    files = release_files(folder)
    hub.fail(method, path, status)
    with pytest.raises(error):
        release.push(folder, files, "org/name", tag="v1.0", api=api)
    repository = hub.repositories.get("org/name")
    tagging = path == "/tag/"
    if repository is not None:
        assert len(repository.history) == (2 if tagging else 1) and not repository.tags
    arrived = set(hub.large)
    made = release.push(folder, files, "org/name", tag="v1.0", api=api)
    repository = hub.repositories["org/name"]
    assert made.new != tagging and set(repository.files()) == {*files, ".gitattributes"}
    assert len(repository.history) == 2 and repository.tags == {"v1.0": made.commit}
    if path in ("/commit/main", "/tag/"):
        assert arrived == set(hub.large) and hub.count("PUT", "/store/") == len(arrived)  # nothing was sent twice
    hub.close()


def test_a_short_outage_is_waited_out(api: HfApi, hub: HubServer, folder: Path) -> None:
    hub.fail("POST", "/preupload/", 503)
    assert release.push(folder, release_files(folder), "org/waited", api=api).new


def test_somebody_elses_push_in_between_is_not_overwritten(
    api: HfApi, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo("org/shared")
    repository, check = hub.repositories["org/shared"], hub.preupload

    def meanwhile(*arguments: object) -> object:
        repository.branches["main"] = repository.add_commit({"theirs.txt": File(b"theirs", False)})
        return check(*arguments)

    monkeypatch.setattr(hub, "preupload", meanwhile)
    with pytest.raises(HfHubHTTPError, match="412"):
        release.push(folder, release_files(folder), "org/shared", api=api)
    assert set(repository.files()) == {"theirs.txt"}
