"""A task on the Hub: read as its files stand, from the cache where there is no network, refused by name."""

import json
from pathlib import Path

import pytest

from tests.hub.conftest import run_python
from tests.hub.repositories import File, Repository
from tests.hub.server import HubServer

README = """---
configs:
- config_name: default
  data_files:
  - {split: test, path: qrels/test.jsonl}
- config_name: corpus
  data_files: corpus.jsonl
- config_name: queries
  data_files: queries.jsonl
---
"""
CORPUS = [{"_id": "NA", "title": "", "text": "2020-01-01"}, {"_id": "null", "title": "T", "text": "x"}]
QRELS = [{"query-id": "nan", "corpus-id": "null", "score": 1.0}, {"query-id": "nan", "corpus-id": "NA", "score": 0}]
READ = """
import json
from modeling_rabtriever.retrieval import DocumentReader
from modeling_rabtriever.tasks.named import load_task
task = load_task("hub:org/dates")
split = task.split("test")
found = [task.name, task.corpus_ids, task.corpus, split.query_ids, split.queries, [*map(list, split.relevant)]]
print(json.dumps([*found, [document.id for document in DocumentReader("hub:org/dates:corpus")]]))
"""
FOUND = ["dates", ["NA", "null"], ["2020-01-01", "T x"], ["nan"], ["None"], [[1]], ["NA", "null"]]
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def data_set(hub: HubServer) -> Repository:
    """A data set whose ids and texts other readers take for missing values and dates, with a file nobody asks for."""
    rows = {"corpus": CORPUS, "queries": [{"_id": "nan", "text": "None"}], "qrels/test": QRELS}
    files = {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in lines) for name, lines in rows.items()}
    files |= {"README.md": README, "other.jsonl": "no JSON at all"}
    made = hub.repositories["org/dates"] = Repository("org/dates", private=False)
    made.branches["main"] = made.add_commit({name: File(text.encode(), False) for name, text in files.items()})
    return made


@pytest.mark.slow
def test_a_task_is_read_as_its_files_stand(hub: HubServer, data_set: Repository, tmp_path: Path) -> None:
    home = tmp_path / "home"
    online = run_python(hub, home, "-c", READ, PYTHONPATH=ROOT)
    assert online.returncode == 0, online.stderr
    assert json.loads(online.stdout) == FOUND
    assert hub.count("GET", "corpus.jsonl") == 1 and hub.count("GET", "other.jsonl") == 0

    asked = len(hub.requests)
    offline = run_python(hub, home, "-c", READ, PYTHONPATH=ROOT, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout) == FOUND and len(hub.requests) == asked


def test_a_data_set_that_is_not_there_is_named(hub: HubServer, tmp_path: Path) -> None:
    code = "from modeling_rabtriever.tasks.named import load_task; load_task('hub:org/nothing')"
    refused = run_python(hub, tmp_path / "home", "-c", code, PYTHONPATH=ROOT)
    assert "ValueError: hub:org/nothing cannot be read (RepositoryNotFoundError" in refused.stderr
