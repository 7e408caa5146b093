"""Small students and a small teacher of every kind that engines serve, with random weights, exported with their texts.

Engines want heads of common widths (32, 64), so these are larger than the models of the other tests.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoModel

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.distillation.encoders import other_encoder, student_of
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.export import export_cross_encoder, export_sentence_transformers
from modeling_rabtriever.export.onnx_towers import export_onnx
from modeling_rabtriever.export.trials import trials_of
from tests.export.conftest import make_tokenizer
from tests.modeling.students import student_with

STUDENTS = ("Llama", "Qwen2", "BERT")
SIDES = ("query", "document")
TEXTS = {
    "query": ["I spilled my drink.", "  it is dark\t", "a <T> and a <|endoftext|> in a text", "drink " * 60, "\r\na}"],
    "document": ["bring the sponge", "  call a doctor\n\n", "text! 水🙂\u3000", "a </s> b [SEP]", "sponge " * 60, "}"],
}
_TRIALS = 24  # more texts a side, of the kinds that exports are tested with


def write_student(name: str, folder: Path) -> None:
    """Writes `towers`, `graphs`, and per side the texts and the student's vectors."""
    student = {"Llama": _llama, "Qwen2": _qwen2, "BERT": _bert}[name](folder)
    export_sentence_transformers(student, folder / "towers")
    export_onnx(student, folder / "graphs")
    for side, encode in zip(SIDES, (student.encode_query, student.encode_document), strict=True):
        texts = list(dict.fromkeys([*TEXTS[side], *trials_of(student.processor, side).sample[::2][:_TRIALS]]))
        (folder / f"{side}.json").write_text(json.dumps(texts))
        np.save(folder / f"{side}.npy", encode(texts).numpy())


def write_teacher(folder: Path) -> None:
    """Writes `model`, pairs within the teacher's limits and its scores, query by query."""
    teacher = _teacher("qwen2", "qwen2", num_key_value_heads=2, max_document_length=80, max_query_length=80)
    export_cross_encoder(teacher, folder / "model")
    queries, documents = ([text for text in TEXTS[side] if len(text) < 100] for side in SIDES)
    pairs = [(query, document) for query in queries for document in documents]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    np.save(folder / "scores.npy", teacher.predict(pairs).numpy().reshape(len(queries), len(documents)))


def _llama(folder: Path) -> RabtrieverModel:
    return student_with(_teacher("llama", "llama", num_key_value_heads=1), embedding_dim=48, feature_poolings=["last"])


def _qwen2(folder: Path) -> RabtrieverModel:
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    teacher = _teacher("qwen2", "qwen2", num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=rope)
    return student_with(teacher, embedding_dim=48, feature_poolings=["last"])


def _bert(folder: Path) -> RabtrieverModel:
    """As all-MiniLM: mean of the states, vectors of length 1."""
    tokenizer = make_tokenizer("wordpiece")
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), initializer_range=0.2, **sizes)
    AutoModel.from_config(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(128, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "minilm"))
    teacher = _teacher("qwen2", "qwen2")
    encoder = other_encoder(str(folder / "minilm"), teacher.processor)
    return student_of(encoder, teacher.answer_direction, StudentArguments()).served()


def _teacher(
    kind: str, family: str, max_document_length: int = 24, max_query_length: int = 20, **changes: Any
) -> GenerativeRerankerModel:
    tokenizer = make_tokenizer(kind)
    limits = {"max_document_length": max_document_length, "max_query_length": max_query_length}
    processor = RabtrieverProcessor(tokenizer, instruction="Relevant:", **limits)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
    others = {"num_hidden_layers": 2, "max_position_embeddings": 256, "initializer_range": 0.1}
    ends = {"pad_token_id": None, "eos_token_id": None, "bos_token_id": None}
    torch.manual_seed(0)
    config = GenerativeRerankerConfig(
        text_config=AutoConfig.for_model(family, **{**sizes, **others, **ends, **changes}),
        true_token_id=processor.true_token_id,
        false_token_id=processor.false_token_id,
    )
    teacher = GenerativeRerankerModel(config).eval()
    teacher.processor = processor
    return teacher
