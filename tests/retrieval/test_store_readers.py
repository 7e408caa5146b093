"""A search sees one version, whoever changes the store meanwhile, in the same object too."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_rabtriever.retrieval import Document, VectorStore

COUNT = 50
PLACES = torch.arange(1.0, COUNT + 1)


def version(number: int) -> tuple[list[Document], torch.Tensor]:
    """All documents as of a version; the inner product with (1, 1) is 1,000 times the version, and the place."""
    documents = [Document(f"d{row}", f"d{row} version {number}", {"version": number}) for row in range(COUNT)]
    return documents, torch.stack([torch.full((COUNT,), 1000.0 * number), PLACES], 1)


@pytest.mark.parametrize("approximate", [False, True])
def test_threads_search_while_another_one_upserts(tmp_path: Path, approximate: bool) -> None:
    store = VectorStore.create(tmp_path / "store", "model", 2)
    store.upsert(*version(1))
    store.build_index()
    stop, wrong, versions = threading.Event(), [], set()

    def search(number: int) -> None:
        while not stop.is_set():
            try:
                where = [None, "version > 0"][number % 2]
                (hits,) = store.search(torch.ones(1, 2), 20, where, approximate)
            except ValueError as error:  # no index of the newest version yet
                if "an approximate index of another version" not in str(error):
                    wrong.append(error)
                continue
            except Exception as error:
                wrong.append(error)
                continue
            seen = {hit.metadata["version"] for hit in hits}
            found = [(hit.id, hit.text, hit.score) for hit in hits]
            expected = [
                (f"d{row - 1}", f"d{row - 1} version {one}", 1000.0 * one + row)
                for one in seen
                for row in range(COUNT, COUNT - 20, -1)
            ]
            if len(seen) != 1 or found != expected:
                wrong.append(found)
            versions.update(seen)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 14):
            store.upsert(*version(number))
            if number % 4 == 0:
                store.compact()
            if approximate:
                store.build_index()
            started = time.monotonic()
            while number not in versions and not wrong and time.monotonic() < started + 60:
                time.sleep(0.001)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and versions >= set(range(2, 14))


def test_a_write_is_read_by_the_thread_that_made_it(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "store", "model", 2)
    missed: list[str] = []

    def write(writer: int) -> None:
        for number in range(8):
            name = f"{writer}-{number}"
            store.upsert([Document(name, "x")], np.ones((1, 2), dtype=np.float32))
            if name not in {hit.id for hit in store.search(torch.ones(1, 2), 1000)[0]}:
                missed.append(name)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missed and len(store) == 24


def test_an_index_of_this_version_is_not_built_again(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "store", "model", 2)
    store.upsert(*version(1))
    store.build_index()
    (index,) = (tmp_path / "store").glob("approximate-*.faiss")
    before = index.stat().st_mtime_ns
    VectorStore(tmp_path / "store").build_index()
    assert index.stat().st_mtime_ns == before
    index.write_bytes(index.read_bytes()[:-5])
    store.build_index()
    assert store.search(torch.ones(1, 2), 1, approximate=True)[0][0].id == f"d{COUNT - 1}"
