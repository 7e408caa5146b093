"""Prefixes on disk: the same scores, resumable, refused when they belong to others."""

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
