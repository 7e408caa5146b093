"""Queries made of others by exchanging names that stand in the same place of documents."""

import itertools
import random
import re

import pytest

from modeling_rabtriever.distillation.swaps import partners, swapped

ROBOT = [
    "pick up the tea",
    "pick up the sea salt chips",
    "find the tea",
    "find the coke can",
    "go to the trash",
    "done",
]


def reference_partners(documents: list[str]) -> set[tuple[str, str]]:
    """Every pair of documents, with their common beginning and end taken off, from the definition."""
    found = set()
    for one, other in itertools.permutations({document.lower() for document in documents}, 2):
        left, right = one.split(), other.split()
        start = 0
        while start < min(len(left), len(right)) and left[start] == right[start]:
            start += 1
        end = 0
        while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
            end += 1
        names = left[start : len(left) - end], right[start : len(right) - end]
        if all(names) and max(map(len, names)) <= min(4, start + end):
            found.add((" ".join(names[0]), " ".join(names[1])))
    return found


def test_partners_stand_in_the_same_place() -> None:
    assert partners(ROBOT) == {
        "coke can": ["tea"],
        "find": ["pick up"],
        "pick up": ["find"],
        "sea salt chips": ["tea"],
        "tea": ["coke can", "sea salt chips"],
    }
    assert partners(["Pick up the coke can", "pick up the Tea can"]) == {"coke": ["tea"], "tea": ["coke"]}
    assert partners(["sponge", "towel", ""]) == {}  # nothing in common but the place


@pytest.mark.parametrize("seed", range(5))
def test_partners_equal_every_pair_of_documents(seed: int) -> None:
    rng = random.Random(seed)
    documents = [" ".join(rng.choices("abc", k=rng.randint(1, 7))) for _ in range(40)]
    found = {(name, other) for name, others in partners(documents).items() for other in others}
    assert found >= reference_partners(documents)
    for name, other in found - reference_partners(documents):  # an alignment that takes less off the front
        assert name.split()[0] != other.split()[0] and name.split()[-1] != other.split()[-1]


def test_a_name_is_exchanged_throughout() -> None:
    query = "Bring me some Tea.\nSteps: 1. find the tea, 2. steaming"
    texts = swapped([query], ["find the tea", "find the coke", "pick the lid"], 1, {query}, seed=0)
    assert texts == ["Bring me some coke.\nSteps: 1. find the coke, 2. steaming"]


def test_partners_in_one_query_change_places_and_parts_follow() -> None:
    documents = ["find the tea", "find the tea bag", "find the coke"]
    assert swapped(["tea, not coke"], documents, 1, [], seed=0) == ["coke, not tea"]
    assert swapped(["tea: find the tea bag"], documents, 1, [], seed=0) == ["coke: find the coke"]


def test_new_texts_of_the_seed_that_are_not_known() -> None:
    documents = [f"pick up the {name}" for name in ("tea", "coke", "apple", "sea salt chips")]
    queries = ["a tea, please", "throw the apple away", "hello"]
    every = {f"a {name}, please" for name in ("coke", "apple", "sea salt chips")}
    every |= {f"throw the {name} away" for name in ("coke", "tea", "sea salt chips")}
    texts = swapped(queries, documents, 6, queries, seed=1)
    assert set(texts) == every and len(texts) == 6
    assert swapped(queries, documents, 6, queries, seed=1) == texts
    assert swapped(queries, documents, 6, queries, seed=2) != texts
    assert "a coke, please" not in swapped(queries, documents, 5, [*queries, "a coke, please"], seed=1)
    assert swapped(queries, documents, 0, queries, seed=1) == []


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (
            ROBOT,
            "swapped is 9; accepted: at most about 2, because 1 of 2 queries contain one of the 5 n",
        ),
        (["sponge", "done"], "accepted: at most about 0, because 0 of 2 queries contain one of the 0 names"),
    ],
)
def test_too_few_names(documents: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        swapped(["a tea, please", "what now?"], documents, 9, [], seed=0)


def test_letters_whose_lower_case_is_another() -> None:
    documents = ["find the \u03bcm scale", "find the cm scale"]  # Greek mu; the query has the micro sign
    assert swapped(["a \u00b5m scale of cm"], documents, 1, [], seed=0) == ["a \u00b5m scale of \u03bcm"]


def test_punctuation_and_case() -> None:
    documents = ["Fetch me the coke.", "fetch me the (milk)", "word " * 40 + "coke", "word " * 40 + "tea"]
    assert partners(documents) == {"coke": ["milk"], "milk": ["coke"]}  # long documents are skipped
    assert swapped(["A Milk, please."], documents, 1, ["a milk, please."], seed=0) == ["A coke, please."]
    with pytest.raises(ValueError, match="accepted: at most about 0"):
        swapped(["A Milk, please."], documents, 1, ["a COKE, please."], seed=0)
