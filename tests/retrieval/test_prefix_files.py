"""Prefixes on disk: the same scores, resumable, refused when they belong to others."""

import shutil

import pytest
import torch

from modeling_rabtriever.retrieval import PrefixFiles
from tests.conftest import DOCUMENTS, QUERIES


def test_scores_from_disk(reranker, tmp_path):
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS, documents_per_shard=3)
    assert len(files) == 4 and [len(shard) for shard in files] == [3, 1]
    expected = reranker.score(QUERIES, DOCUMENTS)
    torch.testing.assert_close(PrefixFiles(tmp_path).score(reranker, QUERIES), expected, atol=1e-5, rtol=0)


def test_a_killed_run_goes_on(reranker, tmp_path, monkeypatch):
    prefill, calls = reranker.prefill, []

    def killed_in_the_second_shard(documents, token_budget):
        calls.append(len(documents))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return prefill(documents, token_budget)

    monkeypatch.setattr(reranker, "prefill", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        PrefixFiles.write(tmp_path, reranker, DOCUMENTS, documents_per_shard=2)
    with pytest.raises(ValueError, match="no finished prefixes"):
        PrefixFiles(tmp_path)
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS, documents_per_shard=2)
    assert calls == [2, 2, 2]  # the first shard was not read again
    torch.testing.assert_close(files.score(reranker, QUERIES), reranker.score(QUERIES, DOCUMENTS), atol=1e-5, rtol=0)


def test_others_are_refused(reranker, make_reranker, tmp_path):
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS)
    other = make_reranker(num_hidden_layers=1)
    with pytest.raises(ValueError, match="accepted: another folder"):
        PrefixFiles.write(tmp_path, other, DOCUMENTS)
    with pytest.raises(ValueError, match="accepted: another folder"):
        PrefixFiles.write(tmp_path, reranker, DOCUMENTS[::-1])
    with pytest.raises(ValueError, match="another model"):
        files.score(other, QUERIES)
    with pytest.raises(ValueError, match="no finished prefixes"):
        PrefixFiles(tmp_path / "nothing")


def test_another_prompt_is_refused(reranker, tmp_path):
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS)
    reranker.processor = reranker.processor.replace(document_template="A: {document}\n")
    with pytest.raises(ValueError, match="holds prefixes of another prompt; accepted"):
        files.score(reranker, QUERIES)
    with pytest.raises(ValueError, match="accepted: another folder"):
        PrefixFiles.write(tmp_path, reranker, DOCUMENTS)


def test_nothing_to_write_is_refused(reranker, tmp_path):
    for documents, per_shard in (([], 4), (DOCUMENTS, 0)):
        with pytest.raises(ValueError, match="accepted: at least one of each"):
            PrefixFiles.write(tmp_path, reranker, documents, documents_per_shard=per_shard)


def _lose(folder, other):
    (folder / "shard-000001.safetensors").unlink()


def _swap(folder, other):
    first, second = (folder / f"shard-00000{number}.safetensors" for number in (0, 1))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)


def _mix(folder, other):
    shutil.copy(other / "shard-000001.safetensors", folder)


@pytest.mark.parametrize("damage", [_lose, _swap, _mix])
def test_shards_that_are_missing_or_others_are_refused_and_made_again(reranker, tmp_path, damage):
    files = PrefixFiles.write(tmp_path / "own", reranker, DOCUMENTS, documents_per_shard=1)
    expected = files.score(reranker, QUERIES)
    PrefixFiles.write(tmp_path / "other", reranker, [f"{text} now" for text in DOCUMENTS], documents_per_shard=1)
    damage(tmp_path / "own", tmp_path / "other")
    with pytest.raises(ValueError, match=r"shard-00000\d.safetensors .*; accepted"):
        files.score(reranker, QUERIES)
    again = PrefixFiles.write(tmp_path / "own", reranker, DOCUMENTS, documents_per_shard=1)
    torch.testing.assert_close(again.score(reranker, QUERIES), expected, atol=1e-5, rtol=0)


def test_a_shard_beyond_the_corpus_is_not_read(reranker, tmp_path):
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS, documents_per_shard=2)
    shutil.copy(tmp_path / "shard-000001.safetensors", tmp_path / "shard-000009.safetensors")
    assert files.score(reranker, QUERIES).shape == (3, 4)


def test_another_setting_of_the_backbone_is_another_model(reranker, tmp_path):
    files = PrefixFiles.write(tmp_path, reranker, DOCUMENTS)
    reranker.config.text_config.rope_parameters["rope_theta"] = 100.0
    with pytest.raises(ValueError, match="holds prefixes of another model; accepted"):
        files.score(reranker, QUERIES)
