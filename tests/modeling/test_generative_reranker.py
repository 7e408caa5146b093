"""The teacher: its score against the plain language model, batching, loading, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverProcessor
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

MakeReranker = Callable[..., GenerativeRerankerModel]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_odds_are_the_language_models(make_reranker: MakeReranker, family: str) -> None:
    reranker = make_reranker(family)
    processor, lm = reranker.processor, reranker.backbone
    for query in QUERIES:
        for document in DOCUMENTS:
            ids = torch.tensor([processor.document_ids(document)[0] + processor.query_ids(query)[0]])
            logits = lm(ids).logits[0, -1]
            expected = logits[processor.true_token_id] - logits[processor.false_token_id]
            assert reranker.predict([(query, document)])[0] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_batch_or_padding_side(make_reranker: MakeReranker, family: str) -> None:
    reranker = make_reranker(family)
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    alone = torch.cat([reranker.predict([pair]) for pair in pairs])
    together = reranker.predict(pairs)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(reranker.predict(pairs, token_budget=40), alone, atol=1e-5, rtol=0)
    left = reranker.processor(query=[q for q, _ in pairs], document=[d for _, d in pairs])
    rows = [ids[mask.bool()] for ids, mask in zip(left["input_ids"], left["attention_mask"], strict=True)]
    right = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    torch.testing.assert_close(reranker(right, mask).logits, alone, atol=1e-5, rtol=0)


def test_forward_shapes_dtypes_and_loss(reranker: GenerativeRerankerModel) -> None:
    batch = reranker.processor(query=QUERIES[:2], document=DOCUMENTS[:2])
    labels = torch.tensor([1, 0])
    output = reranker(**batch, labels=labels)
    assert output.logits.shape == (2,) and output.logits.dtype == torch.float32
    assert output.hidden_state.shape == (2, 32)
    probability = output.logits.sigmoid()
    expected = -(probability[0].log() + (1 - probability[1]).log()) / 2
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(output.logits, reranker.log_odds(output.hidden_state))


def test_half_precision_backbone_still_scores_in_fp32(reranker: GenerativeRerankerModel) -> None:
    full = reranker.predict([(QUERIES[0], document) for document in DOCUMENTS])
    half = reranker.to(torch.bfloat16).predict([(QUERIES[0], document) for document in DOCUMENTS])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.1, rtol=0.05)


def test_rank_sorts_and_cuts(reranker: GenerativeRerankerModel) -> None:
    scores = reranker.predict([(QUERIES[0], document) for document in DOCUMENTS])
    hits = reranker.rank(QUERIES[0], DOCUMENTS, top_k=3)
    assert [hit["corpus_id"] for hit in hits] == scores.argsort(descending=True)[:3].tolist()
    assert hits[0]["text"] == DOCUMENTS[hits[0]["corpus_id"]]
    assert hits[0]["score"] == pytest.approx(scores.max().item(), abs=1e-5)
    assert len(reranker.rank(QUERIES[0], DOCUMENTS)) == len(DOCUMENTS)
    assert len(reranker.rank(QUERIES[0], DOCUMENTS[0])) == 1


def test_equal_scores_keep_the_order_given(reranker: GenerativeRerankerModel) -> None:
    assert [hit["corpus_id"] for hit in reranker.rank(QUERIES[0], [DOCUMENTS[0]] * 5)] == [0, 1, 2, 3, 4]


def test_made_from_a_plain_checkpoint(
    reranker: GenerativeRerankerModel, processor: RabtrieverProcessor, tmp_path: Path
) -> None:
    reranker.backbone.save_pretrained(tmp_path / "plain")
    config = GenerativeRerankerConfig(
        text_config=AutoConfig.from_pretrained(tmp_path / "plain"),
        true_token_id=processor.true_token_id,
        false_token_id=processor.false_token_id,
    )
    made, info = GenerativeRerankerModel.from_pretrained(tmp_path / "plain", config=config, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with pytest.raises(ValueError, match="has no processor"):
        made.rank(QUERIES[0], DOCUMENTS)
    made.processor = processor
    pairs = [(query, DOCUMENTS[0]) for query in QUERIES]
    torch.testing.assert_close(made.predict(pairs), reranker.predict(pairs), atol=1e-6, rtol=0)


def test_its_backbone_is_a_plain_language_model_again(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.backbone.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain.state_dict(), reranker.backbone.state_dict())


def test_training_mode_survives_scoring(reranker: GenerativeRerankerModel) -> None:
    reranker.train()
    reranker.rank(QUERIES[0], DOCUMENTS)
    assert reranker.training
    with pytest.raises(ValueError, match="token_budget is 0"):
        reranker.rank(QUERIES[0], DOCUMENTS, token_budget=0)
    assert reranker.training and reranker.backbone.training


def test_pairs_may_be_any_rows(reranker: GenerativeRerankerModel) -> None:
    texts = [(QUERIES[0], DOCUMENTS[0]), (QUERIES[1], DOCUMENTS[0])]
    assert torch.equal(reranker.predict(pair for pair in texts), reranker.predict(texts))
    rows = reranker.score_pairs(QUERIES, DOCUMENTS, [(0, 0), (1, 0)])
    assert torch.equal(reranker.score_pairs(QUERIES, DOCUMENTS, torch.tensor([[0, 0], [1, 0]])), rows)
    assert torch.equal(reranker.score_pairs(QUERIES, DOCUMENTS, (row for row in [(0, 0), (1, 0)])), rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.rank("", DOCUMENTS), "queries.0. is ''"),
        (lambda m: m.rank("a", []), "documents is empty"),
        (lambda m: m.rank("a", ["b", " "]), "documents.1. is ' '"),
        (lambda m: m.rank("a", [1]), "documents.0. is 1"),
        (lambda m: m.rank("a", ["b"], top_k=0), "top_k is 0; accepted"),
        (lambda m: m.rank("a", ["b"], token_budget=0), "token_budget is 0; accepted"),
        (lambda m: m.predict([None]), r"pairs\[0\] is None; accepted: \(query, document\)"),
        (lambda m: m.predict([{"a", "b"}]), r"pairs\[0\] is \{.*; accepted: \(query, document\)"),
        (lambda m: m.predict(7), "pairs is 7; accepted: a list"),
        (lambda m: m.score_pairs(["a"], ["b"], [(0, 0.0)]), "pairs begin with .*; accepted: .*whole numbers"),
        (lambda m: m.predict([]), "is empty"),
        (lambda m: m.predict(["ab"]), "pairs.0. is 'ab'; accepted"),
        (lambda m: m(torch.tensor([[5]]), labels=torch.tensor([float("nan")])), "labels are .*; accepted"),
        (lambda m: m(torch.tensor([[5]]), labels=torch.tensor([2])), "labels are .*; accepted"),
        (lambda m: m(torch.tensor([[5]]), torch.tensor([[0]])), "a row without a single token"),
    ],
)
def test_bad_calls_are_refused(
    reranker: GenerativeRerankerModel, call: Callable[[GenerativeRerankerModel], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(reranker)


def test_nan_weights_are_not_ranked(reranker: GenerativeRerankerModel) -> None:
    reranker.backbone.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="a score is NaN"):
        reranker.rank(QUERIES[0], DOCUMENTS)


def test_processor_of_another_model_is_refused(
    reranker: GenerativeRerankerModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="true_token_id is .*accepted: the prompt this model was"):
        reranker.processor = RabtrieverProcessor(tokenizer, true_answer="<F>", false_answer="<T>")


def test_prompt_longer_than_the_window_is_refused(
    reranker: GenerativeRerankerModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="accepted: at most the backbone's window, 128"):
        reranker.processor = RabtrieverProcessor(tokenizer, max_document_length=100, max_query_length=100)


def test_backbones_whose_score_is_no_inner_product_are_refused(text_config: Callable[..., Any]) -> None:
    answers = {"true_token_id": 1, "false_token_id": 2}
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    capped = AutoConfig.for_model("gemma2", **sizes, num_attention_heads=2, num_key_value_heads=2, head_dim=8)
    with pytest.raises(ValueError, match=r"final_logit_softcapping is 30.0; accepted"):
        GenerativeRerankerModel(GenerativeRerankerConfig(text_config=capped, **answers))
    biased = AutoConfig.for_model("phi", **sizes, num_attention_heads=2)
    with pytest.raises(ValueError, match="accepted: a linear head without bias"):
        GenerativeRerankerModel(GenerativeRerankerConfig(text_config=biased, **answers))
    with pytest.raises(ValueError, match="true_token_id and false_token_id are not set"):
        GenerativeRerankerModel(GenerativeRerankerConfig(text_config=text_config()))


def test_missing_weights_are_refused(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named"):
        GenerativeRerankerModel.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        GenerativeRerankerModel.from_pretrained(tmp_path / "nowhere")


def test_pickled_weights_are_not_loaded(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(reranker.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises((OSError, ValueError)):
        GenerativeRerankerModel.from_pretrained(tmp_path)
