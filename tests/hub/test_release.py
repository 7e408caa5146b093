"""The release command against a Hub over HTTP, and what a user gets from there without having the package."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import AutoModel

from modeling_rabtriever.cards import publishing as release
from modeling_rabtriever.cards import release_scores
from modeling_rabtriever.cards.release_checks import release_files
from modeling_rabtriever.stages.release import main as release_command
from tests.hub.conftest import LICENSES, ROOT, run_python
from tests.hub.repositories import File
from tests.hub.server import HubServer

STAGES = ("teacher", "student")
# huggingface_hub 2.4 sends large files by a name its HTTP client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

USER = """
import importlib.util, json, sys
sys.modules["modeling_rabtriever"] = None  # the package cannot be imported
from transformers import AutoModel
spec = importlib.util.spec_from_file_location("release_scores", sys.argv[1])
scores = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scores)
found = {}
for place, options in json.loads(sys.argv[2]).items():
    repo = place.split("#")[0]
    try:
        model = AutoModel.from_pretrained(repo, trust_remote_code=True, **options)
        found[place] = [type(model).__module__, scores.fixed_scores(model).tolist()]
    except Exception as error:
        found[place] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""


def as_user(hub: HubServer, home: Path, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Loads models in a fresh process without the package: per place the module and the scores, or the error."""
    done = run_python(hub, home, "-c", USER, release_scores.__file__, json.dumps(wanted))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def released(hub: HubServer, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Both models, pushed by the command; stage -> commit."""
    home = tmp_path_factory.mktemp("home")
    for stage in STAGES:
        flags = ("--model", str(finished_run / stage / "model"), "--repo", f"org/{stage}", "--tag", "v1.0", *LICENSES)
        done = run_python(hub, home, "-m", "training.release", *flags, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
        assert f"org/{stage}: released, commit {hub.repositories[f'org/{stage}'].branches['main']}" in done.stdout
    return {stage: hub.repositories[f"org/{stage}"].branches["main"] for stage in STAGES}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_everything_is_one_commit(stage: str, hub: HubServer, released: dict[str, str], finished_run: Path) -> None:
    repository, folder = hub.repositories[f"org/{stage}"], finished_run / stage / "model"
    assert len(repository.history) == 2 and repository.tags == {"v1.0": released[stage]}
    files = {name: file.content for name, file in repository.files().items() if name != ".gitattributes"}
    assert files == {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert {"model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "README.md"} <= files.keys()
    assert {"evaluation/test.json", "evaluation/test-recall.png"} <= files.keys()
    assert not hub.leaked
    card = ModelCard(files["README.md"].decode())
    assert card.data.model_name == f"org/{stage}" and card.data["data_license"] == "cc-by-sa-4.0"
    assert f'from_pretrained("org/{stage}", trust_remote_code=True)' in card.text and "chores" in card.text
    assert f"{stage}-chores" not in card.content and "| training data | cc-by-sa-4.0 |" in card.text


@pytest.mark.slow
def test_users_without_the_package_get_the_same_scores_or_a_clear_error(
    hub: HubServer, released: dict[str, str], finished_run: Path, tmp_path: Path
) -> None:
    student = hub.repositories["org/student"]
    broken = {**student.files(), "modeling_rabtriever.py": File(b"raise RuntimeError('newer code')", False)}
    student.branches["broken"] = student.add_commit(broken)
    hub.truncate("^/store/")  # the first download of weights ends early, and when it is tried again
    wanted = {
        "org/teacher#cut": {},
        **{f"org/{stage}": {"revision": commit} for stage, commit in released.items()},
        "org/student#tag": {"revision": "v1.0"},
        "org/student#broken": {"revision": "broken"},
        "org/student#pinned": {"revision": "broken", "code_revision": released["student"]},
        "org/student#none": {"revision": "v9.9"},
        "org/nowhere": {},
    }
    found = as_user(hub, tmp_path / "home", wanted)
    assert found["org/teacher#cut"][0] == "OSError" and "Consistency check failed" in found["org/teacher#cut"][1]
    for stage in STAGES:
        module, scores = found[f"org/{stage}"]
        assert module.startswith("transformers_modules.org.") and released[stage] in module
        expected = release_scores.fixed_scores(AutoModel.from_pretrained(finished_run / stage / "model"))
        torch.testing.assert_close(torch.tensor(scores), expected, atol=1e-5, rtol=0)
    assert found["org/student#tag"] == found["org/student"]
    assert found["org/student#broken"] == ["RuntimeError", "newer code"]
    assert found["org/student#pinned"] == found["org/student"]
    assert (
        found["org/student#none"][0] == "OSError"
        and "v9.9 is not a valid git identifier" in found["org/student#none"][1]
    )
    assert found["org/nowhere"][0] == "OSError" and "is not a valid model identifier" in found["org/nowhere"][1]


@pytest.mark.slow
def test_the_command_again_changes_nothing(
    api: HfApi, hub: HubServer, released: dict[str, str], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "HfApi", lambda: api)
    monkeypatch.setattr(release, "check_loading", lambda folder: None)  # seconds, and nothing has changed
    flags = ["--model", str(finished_run / "teacher" / "model"), "--repo", "org/teacher", "--tag", "v1.0"]
    history, sent = list(hub.repositories["org/teacher"].history), hub.count("POST", "/commit/")
    again = release_command(flags)  # the card has kept its licences
    assert again == release.Release("org/teacher", released["teacher"], False, again.url)
    assert hub.repositories["org/teacher"].history == history and hub.count("POST", "/commit/") == sent


@pytest.mark.slow
def test_a_changed_folder_replaces_and_deletes(
    api: HfApi, hub: HubServer, released: dict[str, str], finished_run: Path
) -> None:
    folder = finished_run / "student" / "model"
    student, files = hub.repositories["org/student"], release_files(folder)
    old = {"model-00001-of-00002.safetensors": File(b"stale", True), "notes.txt": File(b"mine", False)}
    student.branches["main"] = student.add_commit({**student.files(), **old})
    with pytest.raises(ValueError, match=rf"tag v1.0 of org/student is commit {released['student']}, .*a new tag"):
        release.push(folder, files, "org/student", tag="v1.0", api=api)
    assert "model-00001-of-00002.safetensors" in student.files()  # refused before anything was pushed
    made = release.push(folder, files, "org/student", tag="v1.1", api=api)
    assert made.new and student.tags == {"v1.0": released["student"], "v1.1": made.commit}
    assert set(student.files()) == {*files, ".gitattributes", "notes.txt"}


def test_a_pull_request_is_opened_once(api: HfApi, hub: HubServer, finished_run: Path) -> None:
    folder = finished_run / "student" / "model"
    files = release_files(folder)
    first = release.push(folder, files, "org/reviewed", create_pr=True, private=True, api=api)
    repository = hub.repositories["org/reviewed"]
    assert repository.private and first.new and repository.pulls == {"refs/pr/1": first.commit}
    assert set(repository.files()) == {".gitattributes"} and set(repository.files("refs/pr/1")) == {
        *files,
        ".gitattributes",
    }
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).repo_info("org/reviewed")
    second = release.push(folder, files, "org/reviewed", create_pr=True, api=api)
    assert not second.new and second.commit == first.commit and list(repository.pulls) == ["refs/pr/1"]
    repository.branches["main"] = first.commit  # merged
    assert not release.push(folder, files, "org/reviewed", create_pr=True, api=api).new
