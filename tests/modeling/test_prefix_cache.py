"""Documents read once: the same scores as the full pass, whatever the batch."""

import warnings
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, modeling_prefix_cache
from modeling_rabtriever.modeling_prefix_cache import DocumentPrefixes
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES


def full_scores(reranker, queries, documents):
    return torch.stack([reranker.predict([(query, document) for document in documents]) for query in queries])


@pytest.mark.parametrize("token_budget", [1, 64, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_full_pass(make_reranker, family, token_budget):
    reranker = make_reranker(family)
    expected = full_scores(reranker, QUERIES, DOCUMENTS)
    assert expected.std() > 0.1
    prefixes = reranker.prefill(DOCUMENTS, token_budget)
    assert not reranker.score(QUERIES, prefixes).requires_grad
    torch.testing.assert_close(reranker.score(QUERIES, prefixes, token_budget), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(reranker.score(QUERIES, DOCUMENTS, token_budget), expected, atol=1e-5, rtol=0)


def test_no_release_warns_of_an_old_name(reranker):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reranker.score(QUERIES, reranker.prefill(DOCUMENTS))


def test_eager_attention_and_train_mode(make_reranker):
    reranker = make_reranker()
    expected = full_scores(reranker, QUERIES, DOCUMENTS)
    reranker.set_attn_implementation("eager")
    reranker.train()
    enable = getattr(reranker, "activation_checkpointing_enable", None) or reranker.gradient_checkpointing_enable
    enable()  # in train mode it would drop the cache, and the document with it
    torch.testing.assert_close(reranker.score(QUERIES, DOCUMENTS), expected, atol=1e-5, rtol=0)
    assert reranker.training


def test_absolute_positions(make_reranker):
    # Rotary positions hide a constant shift; learned absolute ones do not.
    processor = make_reranker().processor
    vocabulary = len(processor.tokenizer)
    config = AutoConfig.for_model(
        "gpt2", vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2
    )
    answers = {"true_token_id": processor.true_token_id, "false_token_id": processor.false_token_id}
    reranker = GenerativeRerankerModel(GenerativeRerankerConfig(text_config=config, **answers)).eval()
    reranker.processor = processor
    expected = full_scores(reranker, QUERIES, DOCUMENTS)
    torch.testing.assert_close(reranker.score(QUERIES, DOCUMENTS), expected, atol=1e-5, rtol=0)


NARROW = {
    "mistral": {"num_key_value_heads": 2, "sliding_window": 3},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 3, "tie_word_embeddings": True}
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 3}
    | {"bos_token_id": None, "eos_token_id": None},
}


@pytest.mark.parametrize("family", NARROW)
def test_backbones_that_forget_read_whole_prompts(make_reranker, monkeypatch, family):
    monkeypatch.setitem(FAMILIES, family, NARROW[family])
    narrow = make_reranker(family)
    expected = full_scores(narrow, QUERIES, DOCUMENTS)
    singly = [narrow.predict([(query, document)]) for query in QUERIES for document in DOCUMENTS]
    torch.testing.assert_close(torch.stack(singly).view(len(QUERIES), -1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow.score(QUERIES, DOCUMENTS), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="attends to 3 tokens, fewer than the longest prompt, .*accepted for prefill"):
        narrow.prefill(DOCUMENTS)


@pytest.mark.parametrize("family", NARROW)
def test_a_window_that_holds_every_prompt_forgets_nothing(make_reranker, monkeypatch, family):
    window = "window_size" if family == "gpt_neo" else "sliding_window"
    monkeypatch.setitem(FAMILIES, family, {**NARROW[family], window: 64})
    wide = make_reranker(family)
    assert wide.reuses_prefixes and wide.processor.max_pair_length <= 64
    expected = full_scores(wide, QUERIES, DOCUMENTS)
    torch.testing.assert_close(wide.score(QUERIES, wide.prefill(DOCUMENTS)), expected, atol=1e-5, rtol=0)


def test_any_pairs_in_any_order(reranker, monkeypatch):
    prefixes, suffixes = reranker.processor.document_ids(DOCUMENTS), reranker.processor.query_ids(QUERIES)
    pairs = [(0, 3), (2, 0), (1, 3), (1, 1), (0, 2), (2, 3)]
    expected = reranker.encode_prompts([prefixes[d] + suffixes[q] for q, d in pairs])
    for tokens in (1, 12, 1000):
        monkeypatch.setattr(modeling_prefix_cache, "PREFIX_TOKENS", tokens)
        found = reranker.map_pairs(lambda states: states, prefixes, suffixes, pairs, token_budget=70)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found = reranker.score_pairs(QUERIES, DOCUMENTS, pairs)
    torch.testing.assert_close(found, reranker.log_odds(expected), atol=1e-5, rtol=0)


def test_few_documents_are_held_at_once(reranker, monkeypatch):
    monkeypatch.setattr(modeling_prefix_cache, "PREFIX_TOKENS", 12)
    held = []
    read = reranker.read_prefixes
    monkeypatch.setattr(
        reranker, "read_prefixes", lambda ids, *a, **k: held.append(sum(map(len, ids))) or read(ids, *a, **k)
    )
    reranker.score_pairs(QUERIES, DOCUMENTS, [(0, 0), (1, 1), (2, 2), (0, 3)])
    longest = max(map(len, reranker.processor.document_ids(DOCUMENTS)))
    assert len(held) > 1 and max(held) <= max(12, longest)


def test_memory_is_that_of_the_results(reranker, monkeypatch):
    kept = []
    map_rows = type(reranker)._map_rows

    def watched(self, compute, *others):
        return map_rows(self, lambda rows: kept.append(compute(rows)) or kept[-1], *others)

    monkeypatch.setattr(type(reranker), "_map_rows", watched)
    reranker.score(QUERIES, DOCUMENTS)
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in kept)


def test_a_family_with_a_state_of_its_own_is_refused(processor):
    sizes = {"vocab_size": len(processor.tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}
    answers = {"true_token_id": processor.true_token_id, "false_token_id": processor.false_token_id}
    config = GenerativeRerankerConfig(text_config=AutoConfig.for_model("rwkv", **sizes), **answers)
    model = GenerativeRerankerModel(config).eval()
    model.processor = processor
    with pytest.raises(ValueError, match="does not hold keys and values of every token; accepted"):
        model.prefill(DOCUMENTS)


def test_parts_describe_themselves(reranker):
    prefixes = reranker.prefill(DOCUMENTS)
    ids = reranker.processor.document_ids(DOCUMENTS)
    assert len(prefixes) == len(DOCUMENTS)
    assert [prefixes.token_ids(row) for row in range(len(prefixes))] == ids
    assert prefixes.longest == max(map(len, ids))
    tokens = sum(map(len, ids))
    assert prefixes.nbytes == tokens * 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head size, fp32
    again = DocumentPrefixes.from_tensors(prefixes.tensors(), prefixes.model)
    torch.testing.assert_close(reranker.score(QUERIES, again), reranker.score(QUERIES, prefixes))
    both = DocumentPrefixes.concatenate([prefixes.select(torch.tensor([2])), prefixes])
    scores = reranker.score(QUERIES, both)
    torch.testing.assert_close(scores[:, 0], scores[:, 3], atol=1e-5, rtol=0)
    assert prefixes.to("cpu").nbytes == prefixes.nbytes


def test_other_models_prefixes_are_refused(make_reranker):
    reranker, other = make_reranker(), make_reranker()
    prefixes = reranker.prefill(DOCUMENTS)
    other.score(QUERIES, prefixes)  # equal weights: the same model
    with torch.no_grad():
        other.backbone.get_input_embeddings().weight.mul_(1.001)
    with pytest.raises(ValueError, match="another model"):
        other.score(QUERIES, prefixes)


def test_bad_input(reranker):
    prefixes = reranker.prefill(DOCUMENTS)
    for pairs in ([(0, 4)], [(3, 0)], [(0, -1)], []):
        with pytest.raises(ValueError, match="pairs; accepted: one or more, each a row of 3 queries and one of 4 doc"):
            reranker.score_pairs(QUERIES, DOCUMENTS, pairs)
    for documents in ([], [" "]):
        with pytest.raises(ValueError, match="documents"):
            reranker.prefill(documents)
    tensors = prefixes.tensors()
    with pytest.raises(ValueError, match="accepted: the parts"):
        DocumentPrefixes.from_tensors({"starts": tensors["starts"]}, "x")
    with pytest.raises(ValueError, match="do not describe"):
        DocumentPrefixes.from_tensors({**tensors, "lengths": tensors["lengths"] + 100}, "x")
    with pytest.raises(ValueError, match="do not describe"):
        DocumentPrefixes.from_tensors(replace(prefixes, input_ids=prefixes.input_ids[:-1]).tensors(), "x")
