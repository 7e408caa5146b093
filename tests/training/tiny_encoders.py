"""Tiny encoders of other families, for the tests of students that stand on them."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from tests.conftest import DOCUMENTS, QUERIES

# Positions, special tokens and the names of things differ between these families.
SPECIAL = {
    "bert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
    "distilbert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
    "mpnet": ("<s>", "</s>", "<pad>", "[UNK]"),
    "roberta": ("<s>", "</s>", "<pad>", "<unk>"),
}


def write_encoder(folder: Path, family: str) -> Path:
    """A tiny bidirectional encoder with a tokenizer of its own, as transformers saves them."""
    start, end, padding, unknown = SPECIAL[family]
    words = sorted({word for text in [*DOCUMENTS, *QUERIES] for word in text.lower().split()})
    vocabulary = {word: row for row, word in enumerate([start, padding, end, unknown, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    names = {"cls_token": start, "sep_token": end, "pad_token": padding, "unk_token": unknown}
    if start == "<s>":
        names |= {"bos_token": start, "eos_token": end}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 1, "initializer_range": 0.3}
    if family == "distilbert":
        sizes = {"vocab_size": len(tokenizer), "dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        sizes |= {"max_position_embeddings": 40, "pad_token_id": 1, "initializer_range": 0.3}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_sentence_transformer(folder: Path, family: str, pooling: str, prompt: str = "", unit: bool = True) -> Path:
    """The same as a sentence-transformers folder; its vectors have length 1 if `unit` says so."""
    plain = write_encoder(folder.parent / "plain", family)
    modules = [Transformer(str(plain)), Pooling(24, pooling_mode=pooling), *([Normalize()] if unit else [])]
    SentenceTransformer(modules=modules, prompts={"query": prompt, "document": ""}, device="cpu").save(str(folder))
    return folder
