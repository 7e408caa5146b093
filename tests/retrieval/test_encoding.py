"""Encoding a corpus: complete, resumable, and nothing that does not belong together is mixed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.identity import same_encoder
from modeling_rabtriever.retrieval import (
    CorpusVectors,
    Document,
    DocumentReader,
    corpus_vectors,
    encode_corpus,
    encoder_fingerprint,
)
from modeling_rabtriever.retrieval.corpus_vectors import shard_paths
from modeling_rabtriever.retrieval.vector_types import narrow, widen

WORDS = ["bring", "the", "sponge", "lamp", "very", "long", "ladder", "doctor", "attic"]


def corpus(count: int) -> list[Document]:
    rng = random.Random(0)
    return [
        Document(f"d{row}", " ".join(rng.choices(WORDS, k=rng.randint(1, 9))), {"place": row % 3})
        for row in range(count)
    ]


@pytest.mark.parametrize(("vector_type", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("int8", 1 / 250)])
def test_vectors_are_the_models(student: RabtrieverModel, tmp_path: Path, vector_type: str, tolerance: float) -> None:
    documents = corpus(23)
    found = encode_corpus(student, documents, tmp_path / "v", vector_type, documents_per_shard=10)
    assert len(found) == 23 and [len(shard.documents) for shard in found] == [10, 10, 3]
    assert [document for shard in found for document in shard.documents] == documents
    expected = student.encode_document([document.text for document in documents]).numpy()
    vectors = np.concatenate([shard.vectors for shard in found])
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected).max() <= tolerance * np.abs(expected).max()
    column = pq.read_table(shard_paths(tmp_path / "v")[0])["vector"]
    assert str(column.type.value_type) == {"float32": "float", "float16": "halffloat", "int8": "int8"}[vector_type]


def test_int8_is_within_half_a_step() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[3] = 0
    held, factors = narrow(vectors, "int8")
    assert held.dtype == np.int8
    steps = np.abs(vectors).max(1) / 127
    assert (np.abs(widen(held, factors) - vectors) <= steps[:, None] / 2 + 1e-6).all()


def test_unfinished_encodings_go_on(student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = corpus(45)
    whole = encode_corpus(student, documents, tmp_path / "whole", documents_per_shard=10)
    encode, calls = student.encode_document, []

    def failing(texts: list[str], *arguments: object, **settings: object) -> torch.Tensor:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(texts, *arguments, **settings)

    monkeypatch.setattr(student, "encode_document", failing)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(student, documents, tmp_path / "cut", documents_per_shard=10)
    with pytest.raises(ValueError, match="holds an unfinished encoding"):
        CorpusVectors(tmp_path / "cut")
    broken = shard_paths(tmp_path / "cut")[1]
    broken.write_bytes(broken.read_bytes()[:100])  # a disk that failed: written again
    found = encode_corpus(student, documents, tmp_path / "cut", documents_per_shard=10)
    assert calls == [10, 10, 10, 10, 10, 10, 5]  # the first shard was kept
    assert [path.read_bytes() for path in shard_paths(tmp_path / "cut")] == [
        path.read_bytes() for path in shard_paths(tmp_path / "whole")
    ]
    assert len(found) == len(whole)


@pytest.mark.slow
def test_killed_at_random_points_it_ends_as_if_it_had_not_been(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "model")
    with (tmp_path / "c.jsonl").open("w") as file:
        for document in corpus(400):
            file.write(json.dumps({"id": document.id, "text": document.text, **document.metadata}) + "\n")
    command = [sys.executable, "-m", "rabtriever_cli", "encode", "--quiet"]
    command += ["--model", str(tmp_path / "model"), "--corpus", str(tmp_path / "c.jsonl")]
    command += ["--documents-per-shard", "4", "--token-budget", "64", "--output"]
    root = Path(corpus_vectors.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    rng, kills = random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stderr=subprocess.DEVNULL)
        before = len(shard_paths(tmp_path / "killed"))
        wanted = before + rng.randint(1, 20)
        while process.poll() is None and len(shard_paths(tmp_path / "killed")) < wanted:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.01)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills
    (tmp_path / "killed" / ".vectors-000099.parquet.1.tmp").write_bytes(b"half")
    subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True)
    found = CorpusVectors(tmp_path / "killed")
    whole = encode_corpus(student, DocumentReader(tmp_path / "c.jsonl"), tmp_path / "whole", documents_per_shard=4)
    assert [document for shard in found for document in shard.documents] == [
        document for shard in whole for document in shard.documents
    ]
    for killed, undisturbed in zip(found, whole, strict=True):
        np.testing.assert_allclose(killed.vectors, undisturbed.vectors, atol=1e-5)
    assert not list((tmp_path / "killed").glob(".*.tmp"))


def test_what_does_not_belong_together_is_refused(student: RabtrieverModel, tmp_path: Path) -> None:
    documents = corpus(12)
    encode_corpus(student, documents, tmp_path / "v", documents_per_shard=5)
    with pytest.raises(ValueError, match=r"holds vectors with vector_type float32 \(this call: int8\)"):
        encode_corpus(student, documents, tmp_path / "v", "int8", documents_per_shard=5)
    changed = [*documents[:6], Document("d6", "another text"), *documents[7:]]
    with pytest.raises(ValueError, match="vectors-000001.parquet holds other documents"):
        encode_corpus(student, changed, tmp_path / "v", documents_per_shard=5)
    with pytest.raises(ValueError, match="holds shards of a longer corpus"):
        encode_corpus(student, documents[:10], tmp_path / "v", documents_per_shard=5)
    before = encoder_fingerprint(student)
    student.processor = student.processor.replace(instruction="Something else:")
    assert encoder_fingerprint(student) != before
    with pytest.raises(ValueError, match=f"holds vectors with model {before[:29]}"):
        encode_corpus(student, documents, tmp_path / "v", documents_per_shard=5)


def test_fingerprint_is_of_the_model_not_of_its_type(student: RabtrieverModel, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "model")
    before = encoder_fingerprint(student)
    half = RabtrieverModel.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert same_encoder(encoder_fingerprint(half), before)
    with torch.no_grad():
        next(half.predictor.parameters()).add_(0.5)
    assert not same_encoder(encoder_fingerprint(half), before)


def test_bad_corpora_are_refused(student: RabtrieverModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the id 'd3' occurs twice"):
        encode_corpus(student, [*corpus(5), Document("d3", "again")], tmp_path / "twice")
    with pytest.raises(ValueError, match="the corpus has no documents"):
        encode_corpus(student, [], tmp_path / "none")
    with pytest.raises(ValueError, match="vector_type is 'int4'; accepted: float32, float16, int8"):
        encode_corpus(student, corpus(2), tmp_path / "x", "int4")
    with pytest.raises(ValueError, match="documents_per_shard is 0"):
        encode_corpus(student, corpus(2), tmp_path / "x", documents_per_shard=0)
    with pytest.raises(ValueError, match="holds no encoded corpus"):
        CorpusVectors(tmp_path)
    with pytest.raises(ValueError, match="beyond float16"):
        narrow(np.full((1, 2), 1e6, dtype=np.float32), "float16")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        narrow(np.full((1, 2), np.nan, dtype=np.float32), "int8")


def test_broken_and_missing_shards_are_named(student: RabtrieverModel, tmp_path: Path) -> None:
    found = encode_corpus(student, corpus(12), tmp_path / "v", documents_per_shard=5)
    first, *_, last = shard_paths(tmp_path / "v")
    last.unlink()
    with pytest.raises(ValueError, match="vectors-000002.parquet is missing; accepted: all shards"):
        list(found)
    first.write_bytes(first.read_bytes()[:50])
    with pytest.raises(ValueError, match="vectors-000000.parquet is broken"):
        list(found)


def test_a_full_disk_loses_nothing(student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = corpus_vectors.pq.write_table, []

    def full(table: object, path: Path, **settings: object) -> None:
        written.append(path)
        Path(path).write_bytes(b"half of it")
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **settings)

    monkeypatch.setattr(corpus_vectors.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left on device"):
        encode_corpus(student, corpus(15), tmp_path / "v", documents_per_shard=5)
    assert [path.name for path in sorted((tmp_path / "v").iterdir())] == ["encoding.json", "vectors-000000.parquet"]
    assert len(encode_corpus(student, corpus(15), tmp_path / "v", documents_per_shard=5)) == 15


def test_a_folder_that_cannot_be_written(student: RabtrieverModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        encode_corpus(student, corpus(2), tmp_path / "file" / "v")
