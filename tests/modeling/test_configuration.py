"""The configurations: round trips and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from modeling_rabtriever import GenerativeRerankerConfig, RabtrieverConfig

TextConfig = Callable[..., Any]


def test_round_trip_keeps_backbone_and_predictor(text_config: TextConfig, tmp_path: Path) -> None:
    config = RabtrieverConfig(
        text_config=text_config("qwen3"), embedding_dim=64, query_hidden_size=48, feature_poolings=["mean", "first"]
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is RabtrieverConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert loaded.text_config.model_type == "qwen3"
    assert (loaded.embedding_dim, loaded.query_hidden_size, loaded.feature_size) == (64, 48, 64)
    assert loaded.feature_poolings == ["mean", "first"] and loaded.document_map is True


def test_defaults_follow_the_backbone(text_config: TextConfig) -> None:
    config = RabtrieverConfig(text_config=text_config())
    assert (config.embedding_dim, config.query_hidden_size, config.feature_size) == (32, 128, 64)


@pytest.mark.parametrize(("poolings", "width"), [(["last"], 32), (["last", "mean"], 64)])
def test_without_a_document_map_the_width_is_that_of_the_features(
    text_config: TextConfig, tmp_path: Path, poolings: list[str], width: int
) -> None:
    config = RabtrieverConfig(text_config=text_config(), document_map=False, feature_poolings=poolings)
    assert config.embedding_dim == width
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).document_map is False
    with pytest.raises(ValueError, match=f"embedding_dim is 24; accepted without document_map: {width}"):
        RabtrieverConfig(text_config=text_config(), document_map=False, feature_poolings=poolings, embedding_dim=24)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim is 0; accepted: a whole number from 1 to 65,536"),
        ({"embedding_dim": 1_000_000_000}, "embedding_dim is 1000000000; accepted: a whole number from 1 to 65,536"),
        ({"embedding_dim": 2.5}, "embedding_dim is 2.5; accepted"),
        ({"embedding_dim": True}, "embedding_dim is True; accepted"),
        ({"query_hidden_size": 0}, "query_hidden_size is 0; accepted: a whole number from 1 to 65,536"),
        ({"query_hidden_size": 65_537}, "query_hidden_size is 65537; accepted"),
        ({"query_hidden_size": "8"}, "query_hidden_size is '8'; accepted"),
        ({"feature_poolings": ["max"]}, "feature_poolings holds 'max'; accepted: first, last, mean"),
        ({"feature_poolings": "last"}, "feature_poolings is 'last'; accepted: a list"),
        ({"feature_poolings": []}, "feature_poolings is .*; accepted: one or more, each once"),
        ({"feature_poolings": ["last", "last"]}, "feature_poolings is .*; accepted: one or more, each once"),
        ({"document_map": 1}, "document_map is 1; accepted: true or false"),
        ({"document_map": None}, "document_map is None; accepted: true or false"),
    ],
)
def test_out_of_range_settings_of_a_student_are_refused(
    text_config: TextConfig, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverConfig(**{"text_config": text_config(), **setting})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"true_token_id": 2}, "both 2; accepted: two that differ"),
        ({"true_token_id": None}, "true_token_id is None; accepted"),
        ({"true_token_id": True}, "true_token_id is True; accepted"),
        ({"false_token_id": 10_000}, "false_token_id is 10000; accepted: an id of the vocabulary"),
        ({"false_token_id": -1}, "false_token_id is -1; accepted: an id of the vocabulary"),
        ({"text_config": None}, "text_config is None; accepted: the configuration of a causal language model"),
    ],
)
def test_out_of_range_settings_of_a_teacher_are_refused(
    text_config: TextConfig, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GenerativeRerankerConfig(**{"text_config": text_config(), "true_token_id": 1, "false_token_id": 2, **setting})


def test_reranker_config_states_window_and_width(text_config: TextConfig) -> None:
    config = GenerativeRerankerConfig(text_config=text_config(), true_token_id=1, false_token_id=2)
    assert (config.window, config.hidden_size) == (128, 32)


def test_chunks_of_attention_are_a_window(text_config: TextConfig) -> None:
    """Caches of transformers keep chunks where a configuration names a size, whatever kinds of layers there are."""
    answers = {"true_token_id": 1, "false_token_id": 2}
    config = GenerativeRerankerConfig(text_config=text_config("llama", attention_chunk_size=8), **answers)
    assert config.attention_window == 8
    assert GenerativeRerankerConfig(text_config=text_config("llama"), **answers).attention_window is None


def test_windows_of_families_whose_positions_start_behind_padding() -> None:
    for family, window in (("bert", 40), ("roberta", 38), ("mpnet", 38)):
        sizes = {"model_type": family, "max_position_embeddings": 40, "pad_token_id": 1}
        assert RabtrieverConfig(text_config=sizes).window == window
