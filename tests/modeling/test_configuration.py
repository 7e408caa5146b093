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
        text_config=text_config("qwen3"),
        true_token_id=1,
        false_token_id=2,
        embedding_dim=64,
        num_heads=4,
        feature_layers=[0, -1],
        feature_poolings=["mean"],
        shared_dim=8,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is RabtrieverConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert loaded.text_config.model_type == "qwen3"
    assert (loaded.embedding_dim, loaded.document_feature_size) == (64, 96)


def test_defaults_follow_the_backbone(text_config: TextConfig) -> None:
    config = RabtrieverConfig(text_config=text_config(), true_token_id=1, false_token_id=2)
    assert (config.embedding_dim, config.predictor_hidden_size, config.document_feature_size) == (32, 32, 64)


def test_paper_predictor_fixes_width_and_features(text_config: TextConfig) -> None:
    answers = {"true_token_id": 1, "false_token_id": 2}
    config = RabtrieverConfig(text_config=text_config(), predictor_type="paper", feature_poolings=["last"], **answers)
    assert config.embedding_dim == 32
    with pytest.raises(ValueError, match='feature_poolings is .*accepted with predictor_type "paper"'):
        RabtrieverConfig(text_config=text_config(), predictor_type="paper", **answers)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim is 0; accepted"),
        ({"embedding_dim": 2.5}, "embedding_dim is 2.5; accepted"),
        ({"embedding_dim": 10, "num_heads": 4}, "embedding_dim is 10; accepted: a multiple of num_heads, 4"),
        ({"embedding_dim": 8, "num_heads": 4, "document_prior": True}, "accepted less one for the document's prior: a"),
        ({"shared_dim": -1}, "shared_dim is -1; accepted: a whole number of at least 0"),
        ({"shared_dim": True}, "shared_dim is True; accepted"),
        ({"query_anchors": 2}, "query_anchors is 2; accepted: a list"),
        ({"query_anchors": [[]]}, r"query_anchors holds \[\]; accepted: lists of ids"),
        ({"query_anchors": [[1, 2000]]}, r"query_anchors holds \[1, 2000\]; accepted: lists of ids"),
        ({"query_anchors": [[1], [1]]}, r"query_anchors holds \[1\]; accepted: .* each once"),
        (
            {"predictor_type": "paper", "feature_poolings": ["last"], "query_anchors": [[1]]},
            'query_anchors is .*"paper"',
        ),
        ({"document_anchors": [[-1]]}, r"document_anchors holds \[-1\]; accepted: lists of ids"),
        (
            {"predictor_type": "paper", "feature_poolings": ["last"], "document_anchors": [[1]]},
            'document_anchors is .*"paper"',
        ),
        ({"embedding_dim": 8, "shared_dim": 8}, "embedding_dim is 8; accepted less shared_dim, 8: a multiple of"),
        ({"predictor_type": "paper", "feature_poolings": ["last"], "shared_dim": 4}, 'shared_dim is 4; .*"paper"'),
        ({"num_heads": -1}, "num_heads is -1; accepted"),
        ({"predictor_hidden_size": 0}, "predictor_hidden_size is 0; accepted"),
        ({"feature_layers": [3]}, "feature_layers holds 3; accepted: whole numbers -3 to 2"),
        ({"feature_layers": [-4]}, "feature_layers holds -4; accepted"),
        ({"feature_layers": []}, "feature_layers is .*; accepted: one or more"),
        ({"feature_layers": [1, 1]}, "feature_layers is .*; accepted: one or more, each once"),
        ({"feature_poolings": ["max"]}, "feature_poolings holds 'max'; accepted: first, last, mean"),
        ({"predictor_type": "concat"}, "predictor_type is 'concat'; accepted: paper, hadamard"),
        ({"true_token_id": 2}, "both 2; accepted: two that differ"),
        ({"true_token_id": None}, "true_token_id is None; accepted"),
        ({"false_token_id": 10_000}, "false_token_id is 10000; accepted: an id of the vocabulary"),
    ],
)
def test_out_of_range_settings_are_refused(text_config: TextConfig, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverConfig(**{"text_config": text_config(), "true_token_id": 1, "false_token_id": 2, **setting})


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
