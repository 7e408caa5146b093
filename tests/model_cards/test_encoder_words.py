"""What a card says of the student's encoder."""

from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever.cards.generate import _encoder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "the teacher's backbone (frozen)"),
        ({"train_encoder": "full", "encoder": None}, "the teacher's backbone (trained with it)"),
        (
            {"train_encoder": "lora", "encoder": "8"},
            "the first 8 layers of the teacher's backbone (trained with it by adapters, now merged)",
        ),
        ({"train_encoder": "full", "encoder": "org/small"}, "the encoder `org/small` (trained with it)"),
    ],
)
def test_the_encoder_in_words(settings: dict[str, Any], words: str) -> None:
    assert _encoder(settings) == words


def test_no_local_path_stands_in_a_card(tmp_path: Path) -> None:
    assert _encoder({"train_encoder": "full", "encoder": str(tmp_path)}).startswith("a local copy of another")
