"""An approximate index finds the share of the exact best that was asked for, or is refused."""

import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import rabtriever_cli as cli
from modeling_rabtriever.retrieval import Document, Tuning, VectorStore
from modeling_rabtriever.retrieval.approximate import ApproximateIndex


def clustered(count: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(40, k, generator=torch.Generator().manual_seed(99))
    chosen = torch.randint(40, (count,), generator=generator)
    return centres[chosen] + torch.randn(count, k, generator=generator)


def naive_recall(index: ApproximateIndex, vectors: torch.Tensor, queries: torch.Tensor) -> float:
    """The mean share of the ten documents with the largest inner products that the index finds."""
    shares = []
    for query in queries:
        best = sorted(range(len(vectors)), key=lambda row: -float(vectors[row] @ query))[:10]
        shares.append(len(set(best) & set(index.search(query[None], 10)[1][0])) / 10)
    return sum(shares) / len(shares)


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.99])
def test_the_recall_is_that_of_the_queries_and_no_list_too_many(wanted: float) -> None:
    vectors, queries = clustered(3000, 16), clustered(30, 16, seed=1)
    index = ApproximateIndex.build(vectors, torch.arange(3000), wanted, queries)
    assert index.tuning.recall == pytest.approx(naive_recall(index, vectors, queries)) and index.tuning.recall >= wanted
    assert (index.tuning.sample, index.tuning.asked) == ("queries", 30)
    if index.tuning.probes > 1:
        fewer = {**vars(index.tuning), "probes": index.tuning.probes - 1}
        index.tuning = Tuning(**fewer)
        assert naive_recall(index, vectors, queries) < wanted


def test_stored_vectors_do_not_count_themselves() -> None:
    # Each vector is alone in its direction, so it is its own best document, and the others are as good as random.
    vectors = torch.nn.functional.normalize(torch.randn(3000, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    index = ApproximateIndex.build(vectors, torch.arange(3000), 0.3)
    assert index.tuning.sample == "stored vectors" and index.tuning.asked == 256
    shares = []
    for row in torch.linspace(0, 2999, 256).long().tolist():
        best = [other for other in (vectors @ vectors[row]).argsort(descending=True)[:11].tolist() if other != row]
        found = index.search(vectors[row : row + 1], 11)[1][0]
        shares.append(len(set(best) & set(found)) / len(best))
    assert index.tuning.recall == pytest.approx(sum(shares) / 256, abs=0.02) and index.tuning.probes > 1


def test_unclustered_vectors_are_refused_with_what_was_reached() -> None:
    vectors = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"of 0\.\d+, not 0.95, when it searches 31 of"):
        ApproximateIndex.build(vectors, torch.arange(4000), 0.95)


@pytest.mark.parametrize("recall", [0, 1.5, -1, True, float("nan"), "much"])
def test_other_recalls_are_refused(recall: float) -> None:
    with pytest.raises(ValueError, match="recall is .*; accepted: a number above 0, at most 1"):
        ApproximateIndex.build(torch.randn(50, 4), torch.arange(50), recall)


@pytest.mark.parametrize("count", [1, 10])
def test_a_few_documents_are_one_list_and_no_warning(count: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = torch.randn(count, 4)
    index = ApproximateIndex.build(vectors, torch.arange(count))
    assert index.tuning.lists == 1 and index.search(vectors[:1], 1)[1] == [[int((vectors @ vectors[0]).argmax())]]
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    made = VectorStore.create(tmp_path / "s", "model", 8)
    made.upsert([Document(f"d{row}", f"text {row}") for row in range(1500)], clustered(1500, 8))
    return made


def test_an_index_that_is_refused_leaves_the_earlier_one(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "s", "model", 64)
    store.upsert([Document(f"d{row}", "x") for row in range(4000)], torch.randn(4000, 64))
    earlier = store.build_index(0.2)
    with pytest.raises(ValueError, match="accepted: a lower recall, or exact search"):
        store.build_index(0.95)
    assert VectorStore(tmp_path / "s").tuning == earlier
    assert len(store.search(torch.randn(1, 64), 5, approximate=True)[0]) == 5


def test_the_wanted_recall_is_kept_until_another_is_named(store: VectorStore, tmp_path: Path) -> None:
    assert store.tuning is None
    assert store.build_index().wanted == 0.95
    assert store.build_index(0.6).wanted == 0.6
    store.delete(["d7"])
    assert store.tuning is None  # it is of another version
    found = VectorStore(tmp_path / "s").build_index()
    assert found.wanted == 0.6 <= found.recall and found.lists == 38


def test_an_index_of_an_older_package_is_built_again(store: VectorStore, tmp_path: Path) -> None:
    store.build_index(0.6)
    (path,) = (tmp_path / "s").glob("approximate-*.safetensors")
    with safe_open(path, "pt") as side:
        rows = side.get_tensor("row_ids")
    checksum = zlib.crc32((tmp_path / "s" / f"{path.stem}.faiss").read_bytes(), zlib.crc32(rows.numpy().tobytes()))
    save_file({"row_ids": rows}, path, {"crc32": f"{checksum:08x}"})
    opened = VectorStore(tmp_path / "s")
    with pytest.raises(ValueError, match="an older version of this package made it.*accepted: a whole one"):
        opened.search(torch.ones(1, 8), 3, approximate=True)
    assert opened.build_index().wanted == 0.95
    assert len(opened.search(torch.ones(1, 8), 3, approximate=True)[0]) == 3


def test_the_command_line(store: VectorStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "s")
    assert cli.main(["index", "--store", folder, "--recall", "0.8"]) == 2
    assert "--recall is given without --approximate; accepted: both, or neither" in capsys.readouterr().err
    for wrong in ("0", "1.5", "nan", "much"):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["index", "--store", folder, "--approximate", "--recall", wrong])
        assert f"'{wrong}' given; accepted: a number above 0, at most 1" in capsys.readouterr().err
    assert cli.main(["index", "--store", folder, "--approximate", "--recall", "1"]) == 0
    assert VectorStore(folder).tuning.recall == 1  # type: ignore[union-attr]
    assert cli.main(["index", "--store", folder, "--approximate", "--recall", "0.8"]) == 0
    tuning = VectorStore(folder).tuning
    assert tuning is not None and tuning.wanted == 0.8
    shown = f"approximate index: recall@10 {tuning.recall:.3f} on 256 stored vectors, with {tuning.probes} of 38 lists"
    assert shown in capsys.readouterr().err
    assert cli.main(["info", folder]) == 0
    assert '"approximate": {"wanted": 0.8, "recall": ' in capsys.readouterr().out
