"""Shorter vectors: rotation leaves scores as they are, and a store rotates and cuts by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import rabtriever_cli as cli
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import (
    CorpusVectors,
    Document,
    Searcher,
    VectorStore,
    encode_corpus,
    principal_axes,
)
from tests.conftest import DOCUMENTS, QUERIES

K = 12


def skewed(count: int, seed: int = 0) -> torch.Tensor:
    """Vectors with a mean that is not zero, whose length is mostly in a few directions of no coordinate axis."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(K, K, generator=torch.Generator().manual_seed(9)))[0]
    return (torch.randn(count, K, generator=generator) + 0.5) * (0.6 ** torch.arange(K)) @ turn


def documents(count: int) -> list[Document]:
    return [Document(f"d{row}", f"text {row}", {"row": row}) for row in range(count)]


def filled(folder: Path, dim: int | None) -> VectorStore:
    held = skewed(60)
    axes = None if dim is None else principal_axes([held[:25].numpy(), held[25:].numpy()], dim)
    store = VectorStore.create(folder, "model", K, axes)
    store.upsert(documents(60), held)
    return store


def test_the_axes_are_those_of_the_second_moment() -> None:
    held = skewed(40)
    axes = principal_axes([held[:7].numpy(), held[7:].numpy()], K)
    torch.testing.assert_close(axes.T @ axes, torch.eye(K), atol=1e-6, rtol=0)
    # Singular vectors of the documents themselves, whatever the sign.
    expected = torch.linalg.svd(held.double(), full_matrices=False)[2].T.float()
    torch.testing.assert_close((axes * expected).sum(0).abs(), torch.ones(K), atol=1e-4, rtol=0)
    torch.testing.assert_close(principal_axes([held.numpy()], 5), axes[:, :5], atol=1e-5, rtol=0)


def test_with_all_numbers_scores_are_the_same_to_fp32_rounding(tmp_path: Path) -> None:
    whole, rotated = filled(tmp_path / "whole", None), filled(tmp_path / "rotated", K)
    queries = skewed(8, seed=1)
    for plain, turned in zip(whole.search(queries, 60), rotated.search(queries, 60), strict=True):
        found = {hit.id: hit.score for hit in turned}
        assert [found[hit.id] for hit in plain] == pytest.approx([hit.score for hit in plain], abs=5e-6)
        assert [hit.id for hit in plain[:10]] == [hit.id for hit in turned[:10]]


def test_a_store_keeps_the_first_numbers_and_rotates_queries_itself(tmp_path: Path) -> None:
    filled(tmp_path / "s", 4)
    store, queries, held = VectorStore(tmp_path / "s", "model"), skewed(5, seed=1), skewed(60)
    assert (store.embedding_dim, store.dim) == (K, 4)
    moment = held.double().T @ held.double()
    axes = torch.linalg.eigh(moment)[1].flip(1)[:, :4].float()
    scores, rows = ((queries @ axes) @ (held @ axes).T).topk(7)
    found = store.search(queries, 7)
    assert [[hit.id for hit in hits] for hits in found] == [[f"d{row}" for row in own] for own in rows.tolist()]
    np.testing.assert_allclose([[hit.score for hit in hits] for hits in found], scores, atol=1e-5)
    # Documents that come later are stored along the same axes.
    store.upsert([Document("new", "later")], 10 * queries[:1])
    (hits,) = VectorStore(tmp_path / "s").search(queries[:1], 1)
    assert hits[0].id == "new" and hits[0].score == pytest.approx(
        10 * (queries[0] @ axes).square().sum().item(), rel=1e-5
    )
    store.build_index()
    assert store.search(queries[:1], 1, approximate=True)[0][0].id == "new"


def test_the_first_axes_keep_more_of_the_ranking_than_the_first_numbers(tmp_path: Path) -> None:
    held, queries = skewed(60), torch.randn(50, K, generator=torch.Generator().manual_seed(3))
    axes = principal_axes([held.numpy()], 4)
    exact = queries @ held.T
    along, first = (queries @ axes) @ (held @ axes).T, queries[:, :4] @ held[:, :4].T
    assert (along - exact).square().mean() < 0.3 * (first - exact).square().mean()


def test_mistakes_are_refused(tmp_path: Path, student: RabtrieverModel) -> None:
    corpus = encode_corpus(student, documents(6), tmp_path / "v")
    for dim in (0, 25, True, 2.0):
        with pytest.raises(ValueError, match=f"dim is {dim}; accepted: a whole number from 1 to 24, the "):
            VectorStore.of_corpus(tmp_path / "s", corpus, dim)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()
    VectorStore.of_corpus(tmp_path / "s", corpus, 5)
    assert VectorStore.of_corpus(tmp_path / "s", corpus).dim == 5  # as the store was made
    with pytest.raises(ValueError, match="dim is 6, but .* keeps 5 numbers of each vector; accepted: 5, or another st"):
        VectorStore.of_corpus(tmp_path / "s", corpus, 6)
    with pytest.raises(ValueError, match=r"axes have shape \(3, 2\); accepted: \(24, dim\)"):
        VectorStore.create(tmp_path / "t", "model", 24, torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"queries have shape \(1, 5\); accepted: \(queries, 24\)"):
        VectorStore(tmp_path / "s").search(torch.ones(1, 5))
    with pytest.raises(ValueError, match="no vectors to find axes of"):
        principal_axes([], 3)


@pytest.mark.parametrize("change", ["missing", "flipped", "of another store"])
def test_axes_that_are_not_the_stores_are_refused(tmp_path: Path, change: str) -> None:
    filled(tmp_path / "s", 4)
    path = tmp_path / "s" / "axes.safetensors"
    if change == "missing":
        path.unlink()
    elif change == "flipped":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        filled(tmp_path / "t", 5)
        path.write_bytes((tmp_path / "t" / "axes.safetensors").read_bytes())
    with pytest.raises(ValueError, match="axes.safetensors is broken .*Index the corpus again"):
        VectorStore(tmp_path / "s")


def test_the_command_line(student: RabtrieverModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student.save_pretrained(tmp_path / "student")
    encode_corpus(student, [Document(f"d{row}", text) for row, text in enumerate(DOCUMENTS)], tmp_path / "v")
    index = ["index", "--vectors", str(tmp_path / "v"), "--store", str(tmp_path / "s")]
    assert cli.main([*index, "--dim", "25"]) == 2
    assert "dim is 25; accepted: a whole number from 1 to 24" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        cli.main([*index, "--dim", "0"])
    assert stop.value.code == 2 and "at least 1" in capsys.readouterr().err
    assert cli.main(["index", "--store", str(tmp_path / "s"), "--dim", "3"]) == 2
    assert "--dim is given without --vectors" in capsys.readouterr().err
    assert cli.main([*index, "--dim", "3"]) == 0
    assert cli.main(["info", str(tmp_path / "s")]) == 0
    assert {"embedding_dim": 24, "dim": 3}.items() <= json.loads(capsys.readouterr().out).items()
    search = ["search", "--model", str(tmp_path / "student"), "--store", str(tmp_path / "s"), "--query", QUERIES[0]]
    assert cli.main(search) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    found = Searcher(student, VectorStore(tmp_path / "s")).search([QUERIES[0]])[0]
    assert [hit["id"] for hit in hits] == [hit.id for hit in found] and len(hits) == len(DOCUMENTS)
    axes = principal_axes((shard.vectors for shard in CorpusVectors(tmp_path / "v")), 3)
    query, held = student.encode_query([QUERIES[0]]) @ axes, student.encode_document(DOCUMENTS) @ axes
    expected = sorted((query @ held.T)[0].tolist(), reverse=True)
    assert [hit["score"] for hit in hits] == pytest.approx(expected, abs=1e-4)
