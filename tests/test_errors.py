"""Messages of other libraries, as ours quote them."""

import pytest

from modeling_rabtriever.errors import reason


@pytest.mark.parametrize(
    ("message", "quoted"),
    [
        ("", "ValueError"),
        ("\n  first \nsecond", "first"),
        (
            "Class validation error:\n  `num_hidden_layers` (1) differs\nmore",
            "Class validation error: `num_hidden_layers` (1) differs",
        ),
        ("only a head:", "only a head:"),
    ],
)
def test_what_is_quoted_says_what_is_wrong(message: str, quoted: str) -> None:
    assert reason(ValueError(message)) == quoted
