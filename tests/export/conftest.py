"""Tokenizers of every kind, trained on a few lines that hold the template, as recipes train them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverProcessor

LINES = [
    'bring the sponge, please (now)! It\'s 42.\nThen go {there} "and" back...\n',
    "Document: {document}\nQuery: {query}\nRelevant: yes no",
    "ünïcode 水水 weiß, naïve\n\n  two",
] * 20
# What a configuration of two layers needs in families with names of their own.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt2": {"n_inner": 48},
    "mistral": {"num_key_value_heads": 2},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
}
KINDS = ("gpt2", "qwen2", "added words", "llama", "metaspace", "unigram", "wordpiece")


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    made: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
        "gpt2": lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "qwen2": lambda: _byte_level(_as_qwen2_splits()),
        "added words": _with_added_words,
        "llama": lambda: _sentencepiece("llama"),
        "metaspace": lambda: _sentencepiece("metaspace"),
        "unigram": _unigram,
        "wordpiece": _wordpiece,
    }
    backend, special = made[kind]()
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=["<T>", "<F>"], **special)


def _as_qwen2_splits() -> Any:
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_level(splits: Any) -> tuple[Tokenizer, dict[str, Any]]:
    backend = Tokenizer(models.BPE())
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizers.NFC(), splits, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    return backend, {"eos_token": "<|endoftext|>"}


def _with_added_words() -> tuple[Tokenizer, dict[str, Any]]:
    """As Qwen3's: special tokens beyond the vocabulary, and added ones that are words like any other."""
    backend, special = _byte_level(_as_qwen2_splits())
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("   ", normalized=False), "Sponge"])
    return backend, special


def _sentencepiece(kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    """Byte fallback, and a post-processor that adds a beginning, and an end (metaspace)."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁\n]+|\n"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    trained.train_from_iterator(["▁" + line.replace(" ", "▁") for line in LINES], trainer)
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if kind == "llama":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    content, learned = json.loads(backend.to_str()), json.loads(trained.to_str())["model"]
    content["model"] |= {name: learned[name] for name in ("vocab", "merges")}
    backend = Tokenizer.from_str(json.dumps(content))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ids = [("<s>", 1), ("</s>", 2)]
    around = "<s> $A" if kind == "llama" else "<s> $A </s>"
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _unigram() -> tuple[Tokenizer, dict[str, Any]]:
    backend = Tokenizer(models.Unigram())
    backend.normalizer, backend.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return backend, {"eos_token": "</s>", "unk_token": "<unk>"}


def _wordpiece() -> tuple[Tokenizer, dict[str, Any]]:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*special.values()], show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend, special


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {kind: make_tokenizer(kind) for kind in KINDS}


@pytest.fixture
def make_teacher(tokenizers: dict[str, PreTrainedTokenizerFast]) -> Callable[..., GenerativeRerankerModel]:
    """A small teacher of any family with a tokenizer of any kind."""

    def make(
        kind: str = "qwen2", family: str = "qwen2", prompt: dict[str, Any] | None = None, **changes: Any
    ) -> GenerativeRerankerModel:
        limits = {"max_document_length": 16, "max_query_length": 12, "instruction": "Relevant:"}
        processor = RabtrieverProcessor(tokenizers[kind], **{**limits, **(prompt or {})})
        sizes = {
            "vocab_size": len(tokenizers[kind]),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "pad_token_id": None,
            "eos_token_id": None,
            "bos_token_id": None,
        }
        torch.manual_seed(0)
        config = GenerativeRerankerConfig(
            text_config=AutoConfig.for_model(family, **{**sizes, **changes}),
            true_token_id=processor.true_token_id,
            false_token_id=processor.false_token_id,
        )
        teacher = GenerativeRerankerModel(config).eval()
        teacher.processor = processor
        return teacher

    return make
