"""A Hub, and a finished run of tiny models, made once; and processes that know no other Hub."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from transformers import Qwen2Tokenizer

from tests.hub.finished_run import make_run
from tests.hub.server import TOKEN, HubServer

ROOT = Path(__file__).parents[2]
LICENSES = ("--license", "apache-2.0", "data=cc-by-sa-4.0")


@pytest.fixture(scope="module")
def finished_run(tokenizer: Qwen2Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tokenizer, tmp_path_factory.mktemp("run"))


@pytest.fixture
def api(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The Hub's client in this process, which is offline otherwise."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


def run_python(
    hub: HubServer, home: Path, *arguments: str, token: str = TOKEN, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python process that knows no other Hub than the test's."""
    home.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, **settings, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
