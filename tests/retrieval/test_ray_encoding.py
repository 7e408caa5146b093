"""Encoding by Ray: the same shards, also where a worker is killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import DocumentReader, encode_corpus
from modeling_rabtriever.retrieval.corpus_vectors import shard_paths
from modeling_rabtriever.retrieval.ray_encoding import encode_corpus_with_ray

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture
def cluster() -> Iterator[None]:
    root = str(Path(__file__).parents[2])
    environment = {"env_vars": {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture
def corpus(student: RabtrieverModel, tmp_path: Path) -> Path:
    student.save_pretrained(tmp_path / "model")
    with (tmp_path / "c.jsonl").open("w") as file:
        for row in range(250):
            file.write(json.dumps({"id": f"d{row}", "text": f"bring the sponge {row % 13} to the attic"}) + "\n")
            if row == 30:
                file.write("broken\n")
    return tmp_path / "c.jsonl"


def encoders() -> list[int]:
    """Process ids of the actors."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = process.read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"Encoder" in name:
            found.append(int(process.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_loses_nothing(student: RabtrieverModel, corpus: Path, tmp_path: Path) -> None:
    killed: list[int] = []
    done = threading.Event()

    def kill_one() -> None:
        while not done.is_set() and not killed:  # a busy machine takes minutes to start a cluster
            if shard_paths(tmp_path / "ray") and (workers := encoders()):
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    reader = DocumentReader(corpus, skip_bad=True)
    try:
        found = encode_corpus_with_ray(
            str(tmp_path / "model"), reader, tmp_path / "ray", workers=2, documents_per_shard=2, token_budget=32
        )
    finally:
        done.set()
        killer.join()
    assert killed, "no worker was there to be killed"
    assert len(found) == 250 and reader.skipped == 1
    reader = DocumentReader(corpus, skip_bad=True)
    encode_corpus(student, reader, tmp_path / "local", documents_per_shard=2, token_budget=32)
    ours, theirs = shard_paths(tmp_path / "local"), shard_paths(tmp_path / "ray")
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]

    before = [path.stat().st_mtime_ns for path in theirs]
    theirs[7].unlink()
    again = encode_corpus_with_ray(
        str(tmp_path / "model"),
        DocumentReader(corpus, skip_bad=True),
        tmp_path / "ray",
        workers=1,
        documents_per_shard=2,
    )
    assert len(again) == 250 and len(list(again)) == 125
    after = [path.stat().st_mtime_ns for path in theirs]
    assert [row for row, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [7]


def test_unusable_settings_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0; accepted: 1 or more"):
        encode_corpus_with_ray(str(tmp_path / "model"), DocumentReader(corpus), tmp_path / "x", workers=0)
    with pytest.raises(ValueError, match="- cannot be read in parts"):
        encode_corpus_with_ray(str(tmp_path / "model"), DocumentReader("-"), tmp_path / "x", workers=1)
    with pytest.raises(ValueError, match="line 32: broken JSON"):
        encode_corpus_with_ray(str(tmp_path / "model"), DocumentReader(corpus), tmp_path / "x", workers=1)
