"""Files that a failing disk or a stranger changed: what is read is right, or a message names the file."""

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import CorpusVectors, Document, VectorStore, encode_corpus
from modeling_rabtriever.retrieval.corpus_vectors import read_shard, shard_path, shard_paths, write_shard
from tests.security.test_fuzz import many

DOCUMENTS = [Document(f"d{row}", f"text {row} ü", {"size": row, "color": "red"}) for row in range(8)]
VECTORS = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)


def flipped(content: bytes, bit: int) -> bytes:
    found = bytearray(content)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error it ends with if it is of the kind we promise."""
    try:
        return call()
    except (ValueError, OSError) as error:
        return error


@pytest.mark.parametrize("vector_type", ["float32", "float16", "int8"])
def test_no_flipped_bit_of_a_shard_changes_what_is_read(tmp_path: Path, vector_type: str) -> None:
    path = tmp_path / "vectors-000000.parquet"
    write_shard(path, DOCUMENTS, VECTORS, vector_type)
    content, (expected, digest) = path.read_bytes(), read_shard(path)
    noticed = 0
    for bit in random.Random(0).sample(range(8 * len(content)), 500):
        path.write_bytes(flipped(content, bit))
        found = outcome(lambda: read_shard(path))
        if isinstance(found, ValueError):
            assert f"{path} is broken" in str(found) and "the other shards are kept" in str(found)
            noticed += 1
            continue
        assert found[0].documents == expected.documents and found[1] == digest
        np.testing.assert_array_equal(found[0].vectors, expected.vectors, strict=True)
    assert noticed > 250


def test_other_readers_of_parquet_notice_changed_numbers(tmp_path: Path) -> None:
    path = tmp_path / "vectors-000000.parquet"
    write_shard(path, DOCUMENTS, VECTORS, "float32")
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * content.index(VECTORS.tobytes()) + 77))
    with pytest.raises(OSError, match="checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_shard_with_a_flipped_bit_is_encoded_again(student: RabtrieverModel, tmp_path: Path) -> None:
    documents = [Document(f"d{row}", "bring the sponge") for row in range(12)]
    corpus = encode_corpus(student, documents, tmp_path / "v", documents_per_shard=5)
    whole = [path.read_bytes() for path in shard_paths(tmp_path / "v")]
    middle = shard_path(tmp_path / "v", 1)
    middle.write_bytes(flipped(whole[1], 8 * whole[1].index(read_shard(middle)[0].vectors.tobytes()) + 77))
    with pytest.raises(ValueError, match="vectors-000001.parquet is broken"):
        list(corpus)
    times = [path.stat().st_mtime_ns for path in shard_paths(tmp_path / "v")]
    encode_corpus(student, documents, tmp_path / "v", documents_per_shard=5)
    assert [path.read_bytes() for path in shard_paths(tmp_path / "v")] == whole
    after = [path.stat().st_mtime_ns for path in shard_paths(tmp_path / "v")]
    assert [before == now for before, now in zip(times, after, strict=True)] == [True, False, True]


def test_a_shard_of_another_folder_is_noticed(student: RabtrieverModel, tmp_path: Path) -> None:
    for name in ("a", "b"):
        documents = [Document(f"{name}{row}", "bring the sponge") for row in range(4)]
        encode_corpus(student, documents, tmp_path / name, documents_per_shard=2)
    shutil.copy(shard_path(tmp_path / "b", 1), shard_path(tmp_path / "a", 1))
    with pytest.raises(ValueError, match="vectors-000001.parquet holds other documents than were encoded"):
        list(CorpusVectors(tmp_path / "a"))


def test_shards_of_older_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "vectors-000000.parquet"
    write_shard(path, DOCUMENTS, VECTORS, "float32")
    written = pq.read_table(path).replace_schema_metadata(None)  # no checksums, and NaN where JSON has none
    metadata = ['{"size": NaN}', *written["metadata"].to_pylist()[1:]]
    pq.write_table(written.set_column(2, "metadata", [metadata]), path)
    shard, _ = read_shard(path)
    assert shard.documents[1:] == DOCUMENTS[1:] and shard.documents[0].metadata == {"size": None}
    np.testing.assert_array_equal(shard.vectors, VECTORS)


columns = st.sampled_from(
    [pa.array(["a"]), pa.array([1]), pa.array([None], pa.string()), pa.array([[1.0, 2.0]]), pa.array([b"\xff"])]
    + [pa.FixedSizeListArray.from_arrays(pa.array([1.0, number], pa.float32()), 2) for number in (2.0, float("nan"))]
    + [pa.array(["{}"]), pa.array(["[1]"]), pa.array(['{"a":']), pa.array(["{}" * 40_000]), pa.array([{"a": 1}])]
)


@many
@given(content=st.binary(max_size=60) | st.dictionaries(st.sampled_from(["id", "text", "metadata", "vector"]), columns))
def test_any_parquet_file_is_read_or_refused(tmp_path: Path, content: bytes | dict[str, pa.Array]) -> None:
    path = tmp_path / "vectors-000000.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    record = '{"done": true, "model": "m", "embedding_dim": 2, "vector_type": "float32", "documents": 1}'
    (tmp_path / "encoding.json").write_text(record)
    found = outcome(lambda: list(CorpusVectors(tmp_path)))
    if isinstance(found, ValueError):
        assert str(tmp_path) in str(found)
        return
    (shard,) = found
    (document,) = shard.documents
    assert isinstance(document.id, str) and isinstance(document.text, str) and isinstance(document.metadata, dict)
    assert shard.vectors.shape == (1, 2) and np.isfinite(shard.vectors).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("documents", -1), ("documents", True), ("embedding_dim", 0), ("shards", "abc"), ("shards", [1]), ("model", None)],
)
def test_a_broken_manifest_is_refused(student: RabtrieverModel, tmp_path: Path, name: str, value: Any) -> None:
    encode_corpus(student, DOCUMENTS, tmp_path / "v")
    manifest = tmp_path / "v" / "encoding.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), name: value}))
    with pytest.raises(ValueError, match="encoding.json is not a valid record; accepted: "):
        CorpusVectors(tmp_path / "v")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = VectorStore.create(tmp_path / "store", "model", 5)
    store.upsert(DOCUMENTS, torch.from_numpy(VECTORS))
    store.upsert(DOCUMENTS[:2], torch.from_numpy(VECTORS[2:4]))
    store.delete(["d5"])
    store.build_index()
    return tmp_path / "store"


def test_no_flipped_bit_of_an_approximate_index_changes_what_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = torch.from_numpy(VECTORS[:3])
    expected = VectorStore(folder).search(queries, 3, approximate=True)
    (index,), (beside,) = folder.glob("approximate-*.faiss"), folder.glob("approximate-*.safetensors")
    read, parsed = faiss.read_index, []
    monkeypatch.setattr(faiss, "read_index", lambda path: parsed.append(path) or read(path))
    for path in (index, beside):
        content = path.read_bytes()
        for bit in random.Random(0).sample(range(8 * len(content)), 60):
            path.write_bytes(flipped(content, bit))
            parsed.clear()
            found = outcome(lambda: VectorStore(folder).search(queries, 3, approximate=True))
            if isinstance(found, ValueError):
                assert f"{index} is broken" in str(found) and "rabtriever index --approximate" in str(found)
                assert not parsed  # FAISS is not made for what it was not given
            else:
                assert found == expected and path == beside  # the padding of its header
        path.write_bytes(content)


STEPS: dict[str, Callable[[VectorStore], object]] = {
    "search": lambda store: store.search(torch.ones(2, 5), 9),
    "where": lambda store: store.search(torch.ones(2, 5), 9, "size > 3 AND color = 'red'"),
    "approximate": lambda store: store.search(torch.ones(2, 5), 9, approximate=True),
    "upsert": lambda store: store.upsert(DOCUMENTS[4:6], torch.ones(2, 5)),
    "delete": lambda store: store.delete(["d1"]),
    "compact": VectorStore.compact,
    "build": VectorStore.build_index,
}


@pytest.mark.parametrize("fault", ["removed", "empty", "half", "other bytes", "flipped bits"])
def test_a_broken_store_says_so(folder: Path, tmp_path: Path, fault: str) -> None:
    rng, said = random.Random(0), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        broken = copy / path.relative_to(folder)
        content = broken.read_bytes()
        if fault == "removed":
            broken.unlink()
        else:
            changed = {"empty": b"", "half": content[: len(content) // 2], "other bytes": rng.randbytes(len(content))}
            several = content
            for _ in range(8):
                several = flipped(several, rng.randrange(8 * len(content)))
            broken.write_bytes(changed.get(fault, several))
        store = outcome(partial(VectorStore, copy))
        found = [store] if isinstance(store, Exception) else [outcome(partial(step, store)) for step in STEPS.values()]
        for error in [result for result in found if isinstance(result, Exception)]:
            assert type(error) in (ValueError, OSError, FileNotFoundError) and ".rs:" not in str(error)
            said += 1
    assert said
