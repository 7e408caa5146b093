"""Whatever comes in, what comes out is right or a ValueError that says what is accepted."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer

from modeling_rabtriever import (
    GenerativeRerankerConfig,
    GenerativeRerankerModel,
    RabtrieverConfig,
    RabtrieverModel,
    RabtrieverProcessor,
)
from modeling_rabtriever.export.prompt_tokenizer import save_tower_tokenizer
from modeling_rabtriever.retrieval import CorpusVectors, PrefixFiles, VectorStore
from modeling_rabtriever.retrieval.corpus_vectors import MANIFEST
from modeling_rabtriever.retrieval.documents import Document, DocumentReader

# The same examples every time: a test that fails once in a while helps nobody.
many = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(max_size=60) | st.text(alphabet="<T>F pad|. \n\t🙂ü\x00\x1c", max_size=60)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**6) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@many
@given(text=texts)
def test_any_text_becomes_a_prompt_or_is_refused(processor: RabtrieverProcessor, text: str) -> None:
    if not text.strip():
        with pytest.raises(ValueError, match="accepted: a string that is not blank"):
            processor.query_ids(text)
        return
    prefix, suffix = processor.document_ids(text)[0], processor.query_ids(text)[0]
    assert len(prefix) + len(suffix) <= processor.max_pair_length
    assert suffix[-2:] == processor.query_ids("x")[0][-2:]  # the answer position
    special = set(processor.tokenizer.all_special_ids) | {processor.true_token_id, processor.false_token_id}
    assert not special & {*prefix, *suffix}


@many
@given(text=texts)
def test_the_exported_tokenizer_reads_any_text_alike(processor: RabtrieverProcessor, tmp_path: Path, text: str) -> None:
    for side, ids in (("query", processor.query_ids), ("document", processor.document_ids)):
        if not (tmp_path / side).is_dir():
            (tmp_path / side).mkdir()
            save_tower_tokenizer(processor, side, 0, tmp_path / side)
        if text.strip():
            tokenizer = AutoTokenizer.from_pretrained(tmp_path / side)
            assert tokenizer(text, truncation=True)["input_ids"] == ids(text)[0]


@many
@given(
    setting=st.sampled_from(
        ["instruction", "document_template", "query_template", "true_answer", "false_answer", "query_truncation_side"]
    ),
    value=anything
    | st.lists(st.sampled_from(["{document}", "{query}", "{instruction}", "{", "}", "a", " "])).map("".join),
)
def test_any_prompt_setting_works_or_is_refused(processor: RabtrieverProcessor, setting: str, value: Any) -> None:
    try:
        made = RabtrieverProcessor(processor.tokenizer, **{setting: value})
    except ValueError:
        return
    assert made.document_ids("a dog")[0] and made.query_ids("a dog")[0]


@many
@given(
    setting=st.sampled_from(
        [
            "embedding_dim", "query_hidden_size", "feature_poolings", "document_map", "predictor_type",
        ]
    ),
    value=anything | st.lists(st.sampled_from(["first", "last", "mean", -1, 0]), max_size=3),
)  # fmt: skip
def test_any_configuration_of_a_student_works_or_is_refused(setting: str, value: Any) -> None:
    text_config = AutoConfig.for_model(
        "qwen2", vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    try:
        config = RabtrieverConfig(**{"text_config": text_config, setting: value})
    except ValueError:
        return
    if config.embedding_dim <= 512 and config.query_hidden_size <= 512:
        predictor, features = RabtrieverModel(config).predictor, torch.randn(2, config.feature_size)
        assert predictor.encode_query(features).shape == (2, config.embedding_dim)
        assert predictor.encode_document(features).shape == (2, config.embedding_dim)
    assert RabtrieverConfig(**json.loads(config.to_json_string())).to_dict() == config.to_dict()


@many
@given(setting=st.sampled_from(["true_token_id", "false_token_id"]), value=anything)
def test_any_configuration_of_a_teacher_works_or_is_refused(setting: str, value: Any) -> None:
    text_config = AutoConfig.for_model(
        "qwen2", vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    try:
        config = GenerativeRerankerConfig(
            **{"text_config": text_config, "true_token_id": 1, "false_token_id": 2, setting: value}
        )
    except ValueError:
        return
    assert GenerativeRerankerModel(config).answer_direction.shape == (8,)
    assert GenerativeRerankerConfig(**json.loads(config.to_json_string())).to_dict() == config.to_dict()


@many
@given(content=st.binary(max_size=80) | st.text(alphabet=string.printable, max_size=80).map(str.encode))
def test_any_corpus_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    try:
        found = list(DocumentReader(str(path)))
    except ValueError:
        return
    assert all(isinstance(document, Document) and document.text.strip() for document in found)


@many
@given(record=anything | st.fixed_dictionaries({"done": st.just(True), "model": anything, "documents": anything}))
def test_any_manifest_is_read_or_refused(tmp_path: Path, record: Any) -> None:
    for name, reader in ((MANIFEST, CorpusVectors), ("prefixes.json", PrefixFiles)):
        (tmp_path / name).write_text(json.dumps(record))
        try:
            found = reader(tmp_path)
        except ValueError:
            continue
        assert len(found) >= 0


@many
@given(condition=texts | st.sampled_from(["1=1; DROP TABLE documents", "id = '../../x'", "text LIKE '%'", "nope = 1"]))
def test_any_condition_is_answered_or_refused(tmp_path: Path, condition: str) -> None:
    folder = tmp_path / "store"
    if not VectorStore.exists(folder):
        store = VectorStore.create(folder, "model", 2)
        store.upsert([Document("a", "text", {})], torch.tensor([[1.0, 0.0]]))
    store = VectorStore(folder)
    try:
        hits = store.search(torch.tensor([[1.0, 0.0]]), 1, where=condition)
    except ValueError:
        return
    assert len(hits) == 1 and len(store) == 1
