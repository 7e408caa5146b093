"""The page From other libraries: its code for sentence-transformers holds here, that of the others in `make others`."""

import pytest

from tests.other_libraries import NAMES, check, left_hand_sides, versions


def test_the_page_names_a_release_of_every_library() -> None:
    assert {name.lower() for name in versions()} == {name.lower() for name in NAMES}


def test_every_table_is_read() -> None:
    assert {section for section, _ in left_hand_sides()} == set(NAMES)


@pytest.mark.parametrize("code", [code for section, code in left_hand_sides() if section == "sentence-transformers"])
def test_what_the_page_says_of_sentence_transformers(code: str) -> None:
    check("sentence-transformers", code)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("model.encode_queries(texts)", AttributeError),
        ("CrossEncoder(...).rank(query)", TypeError),
        ("util.semantic_search(q, d, k=5)", TypeError),
        ('prompts_name="query"', KeyError),
    ],
)
def test_what_is_not_there_is_found(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check("sentence-transformers", code)
