"""Settings of the student's training: how many candidates a round adds, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig


def make(tmp_path: Path, **settings: Any) -> RabtrieverDistillationConfig:
    return RabtrieverDistillationConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, **settings)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("candidates", [8, 9, 12, 16, 40, 41, 100])
def test_rounds_draw_all_candidates(tmp_path: Path, candidates: int, rounds: int) -> None:
    config = make(tmp_path, candidates=candidates, rounds=rounds)
    first, *later = [config.drawn(round_) for round_ in range(rounds + 1)]
    assert first + sum(later) == candidates
    assert first == (2 * candidates // (rounds + 2) if rounds else candidates)
    assert min(first, *later, candidates) >= 1 and (not later or max(later) - min(later) <= 1)


@pytest.mark.parametrize(
    ("candidates", "rounds", "parts"),
    [(16, 2, [8, 4, 4]), (40, 3, [16, 8, 8, 8]), (6, 1, [4, 2]), (2, 1, [1, 1]), (8, 0, [8]), (5, 4, [1, 1, 1, 1, 1])],
)
def test_the_start_has_twice_a_rounds_part(tmp_path: Path, candidates: int, rounds: int, parts: list[int]) -> None:
    config = make(tmp_path, candidates=candidates, rounds=rounds)
    assert [config.drawn(round_) for round_ in range(rounds + 1)] == parts


def test_more_candidates_than_documents_are_refused(tmp_path: Path) -> None:
    config = make(tmp_path, candidates=13)
    config.check_candidates(13)
    with pytest.raises(ValueError, match="candidates is 13; accepted: at most 12, the number of documents"):
        config.check_candidates(12)


def test_states_are_needed_for_the_mse_alone(tmp_path: Path) -> None:
    assert make(tmp_path, mse_weight=0.1).needs_states
    assert not make(tmp_path, kl_weight=0.1).needs_states


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mse_weight": -1.0}, "'mse_weight': -1.0.*; accepted: finite weights"),
        ({"kl_weight": float("inf")}, "'kl_weight': inf.*; accepted: finite weights of 0 or more"),
        ({"listwise_weight": 0.0}, "at least one above"),
        ({"temperature": 0.0}, "temperature is 0.0; accepted: a number above 0"),
        ({"encoder_learning_rate": 0.0}, "encoder_learning_rate is 0.0; accepted: a number above 0"),
        ({"encoder_learning_rate": float("nan")}, "encoder_learning_rate is nan; accepted: a number above 0"),
        ({"train_encoder": "half"}, "train_encoder is 'half'; accepted: none, lora, full"),
        ({"train_encoder": "none", "activation_checkpointing": True}, "accepted: false if train_encoder is none"),
        ({"remove_unused_columns": True}, "remove_unused_columns is true; accepted: false"),
        ({"label_share": 1.5}, "label_share is 1.5; accepted: 0 to 1"),
        (
            {"label_share": 0.5, "listwise_weight": 0.0, "mse_weight": 1.0},
            "label_share is 0.5 with listwise_weight 0; accepted: a weight above 0",
        ),
        ({"rounds": -1}, "rounds is -1; accepted: 0 or more"),
        ({"candidates": 0, "rounds": 0}, "candidates is 0 with 0 rounds; accepted: at least 1 at the start and 1 per "),
        ({"candidates": 2, "rounds": 2}, "candidates is 2 with 2 rounds; accepted: at least 1 at the start and 1 per "),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)
