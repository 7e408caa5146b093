"""A store that holds a part of a corpus says so until it holds all of it."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import rabtriever_cli as cli
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import (
    CorpusVectors,
    Document,
    Unfinished,
    UnfinishedStoreWarning,
    VectorStore,
    encode_corpus,
)
from modeling_rabtriever.retrieval.lance_table import Changes
from modeling_rabtriever.retrieval.unfinished import UNFINISHED


def encode(student: RabtrieverModel, folder: Path, count: int, first: int = 0) -> CorpusVectors:
    documents = [Document(f"d{row}", "bring the sponge") for row in range(first, first + count)]
    return encode_corpus(student, documents, folder, documents_per_shard=4)


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """What happens instead of the upsert of this number."""
    upsert, calls = Changes.upsert, []

    def stopped(changes: Changes, rows: object) -> None:
        calls.append(1)
        if len(calls) == number:
            raise error
        upsert(changes, rows)

    monkeypatch.setattr(Changes, "upsert", stopped)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("number", [1, 3])
def test_a_stopped_index_is_noted_until_it_is_completed(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    corpus = encode(student, tmp_path / "v", 10)
    stop_at(monkeypatch, number, error)
    with pytest.raises(type(error)):
        VectorStore.of_corpus(tmp_path / "s", corpus)
    monkeypatch.undo()
    added = 4 * (number - 1)
    store = VectorStore(tmp_path / "s")
    with pytest.warns(UnfinishedStoreWarning, match=rf"holds {added} of 10 documents of .*v: rabtriever index"):
        assert len(store.search(torch.ones(1, 24), 100)[0]) == added
    assert store.unfinished == [Unfinished(str(tmp_path / "v"), added, 10)] and len(store) == added
    store.add_corpus(corpus)
    assert len(store.search(torch.ones(1, 24), 100)[0]) == 10 and not store.unfinished
    assert not (tmp_path / "s" / UNFINISHED).exists()


def test_another_corpus_does_not_complete_it(
    student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = encode(student, tmp_path / "a", 10), encode(student, tmp_path / "b", 5, 100)
    stop_at(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        VectorStore.of_corpus(tmp_path / "s", first)
    monkeypatch.undo()
    store = VectorStore.of_corpus(tmp_path / "s", second)
    store.upsert([Document("own", "x")], torch.ones(1, 24))
    assert store.unfinished == [Unfinished(str(tmp_path / "a"), 4, 10)]
    assert cli.main(["index", "--vectors", str(tmp_path / "b"), "--store", str(tmp_path / "s")]) == 0
    assert f"warning: {tmp_path / 's'} holds 4 of 10 documents of {tmp_path / 'a'}" in capsys.readouterr().err
    store.refresh()
    monkeypatch.chdir(tmp_path)
    store.add_corpus(CorpusVectors("a"))  # the same folder by another name
    assert not store.unfinished and len(store) == 16


@pytest.mark.parametrize(
    "content", ["[", "[]", '{"v": 1}', '{"v": {"added": 1}}', '{"v": {"added": "1", "documents": 2}}']
)
def test_a_broken_note_is_named(student: RabtrieverModel, tmp_path: Path, content: str) -> None:
    store = VectorStore.create(tmp_path / "s", "model", 24)
    (tmp_path / "s" / UNFINISHED).write_text(content)
    with pytest.raises(ValueError, match="unfinished.json is not"):
        store.search(torch.ones(1, 24))


def test_threads_put_corpora_into_a_new_store(student: RabtrieverModel, tmp_path: Path) -> None:
    corpora = [encode(student, tmp_path / str(number), 10, 5 * number) for number in range(3)]
    stores: list[VectorStore] = []
    threads = [
        threading.Thread(target=lambda corpus=corpus: stores.append(VectorStore.of_corpus(tmp_path / "s", corpus)))
        for corpus in (*corpora, corpora[0])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4 and len(VectorStore(tmp_path / "s")) == 20


@pytest.mark.slow
def test_a_killed_command(student: RabtrieverModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student.save_pretrained(tmp_path / "student")
    encode(student, tmp_path / "v", 200)
    store, note = tmp_path / "s", tmp_path / "s" / UNFINISHED
    command = ["index", "--vectors", str(tmp_path / "v"), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-m", "rabtriever_cli", *command], env=environment)
    while process.poll() is None and (not note.exists() or '"added": 0' in note.read_text()):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    search = ["search", "--model", str(tmp_path / "student"), "--store", str(store), "--query", "x"]
    assert cli.main(search) == 0
    assert f"rabtriever: warning: {store} holds" in (said := capsys.readouterr().err) and "of 200 documents" in said
    assert cli.main(["info", str(store)]) == 0
    (unfinished,) = json.loads(capsys.readouterr().out)["unfinished"]
    assert unfinished["vectors"] == str(tmp_path / "v") and 0 < unfinished["added"] < unfinished["documents"] == 200
    assert cli.main(command) == 0
    assert "200 documents in" in capsys.readouterr().err
    assert cli.main(["info", str(store)]) == 0
    assert json.loads(capsys.readouterr().out)["unfinished"] == []
    assert cli.main(search) == 0 and "warning" not in capsys.readouterr().err
