"""The household world keeps its promises: sizes, splits, and no word that gives the answer away."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from modeling_rabtriever.tasks.beir import load_beir
from modeling_rabtriever.tasks.household import corpus, queries, read_world, write_household


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    return read_world()


def test_sizes(world: dict[str, Any]) -> None:
    uses = Counter(thing for need in world["needs"].values() for thing in need["objects"])
    assert len(uses) >= 40 and set(uses.values()) <= {1, 2, 3}
    assert len(world["places"]) == 8
    assert len(world["needs"]) >= 16
    phrasings = [phrasing for need in world["needs"].values() for phrasing in need["phrasings"]]
    assert all(len(need["phrasings"]) >= 6 for need in world["needs"].values())
    assert len(set(phrasings)) == len(phrasings)
    splits = queries(world)
    assert len(splits["test"]) >= 1000 and len(splits["test_phrasing"]) >= 1000


def test_relevant_is_every_object_that_serves_the_need_at_that_place(world: dict[str, Any]) -> None:
    texts = corpus(world)
    for split in queries(world).values():
        for query_id, text, relevant in split:
            need, _, place = query_id.split("-")
            assert text.startswith(f"In the {place}: ")
            things = world["needs"][need]["objects"]
            assert sorted(texts[id_] for id_ in relevant) == sorted(f"bring the {x} to the {place}" for x in things)


def test_query_and_document_share_no_content_word_but_the_place(world: dict[str, Any]) -> None:
    places = set(world["places"])
    document_words = {word for text in corpus(world).values() for word in _words(text)} - places
    for need in world["needs"].values():
        for phrasing in need["phrasings"]:
            assert not _words(phrasing) & places, phrasing
            for word in _words(phrasing):
                # Nor a piece of one: a subword tokenizer would see it.
                shared = [other for other in document_words if word == other or (len(word) > 3 and word in other)]
                assert not shared, (phrasing, word, shared)


def test_the_large_world_has_thousands_of_documents_and_the_same_rules() -> None:
    world = read_world(large=True)
    texts = corpus(world)
    assert len(texts) == 5600 == len(set(texts.values()))
    needed = {thing for need in world["needs"].values() for thing in need["objects"]}
    others = set(world["other_objects"])
    assert not needed & others
    phrasings = {word for need in world["needs"].values() for text in need["phrasings"] for word in _words(text)}
    places = {word for place in world["places"] for word in _words(place)} - {"house"}
    assert not phrasings & others and not phrasings & places
    splits = queries(world)
    assert {name: len(split) for name, split in splits.items()} == {
        name: len(split) for name, split in queries(read_world()).items()
    }
    for split in splits.values():
        for _, text, relevant in split:
            place = text.partition(":")[0].removeprefix("In the ")
            assert all(texts[id_].endswith(f" to the {place}") for id_ in relevant)


def test_splits_hold_out_what_they_say(world: dict[str, Any]) -> None:
    splits = queries(world)
    situation = {name: {_situation(id_) for id_, _, _ in split} for name, split in splits.items()}
    combination = {name: {text for _, text, _ in split} for name, split in splits.items()}
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not combination[first] & combination[second]
    assert situation["test"] <= situation["train"] and situation["dev"] <= situation["train"]
    assert not situation["test_phrasing"] & situation["train"]
    needs = {_situation(id_).split("-")[0] for id_, _, _ in splits["test_phrasing"]}
    assert needs == set(world["needs"])


def test_written_twice_it_is_the_same_and_loads(tmp_path: Path, world: dict[str, Any]) -> None:
    first, second = write_household(tmp_path / "a"), write_household(tmp_path / "b")
    for path in (p for p in first.rglob("*") if p.is_file()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    task = load_beir(first)
    assert len(task.corpus) == len(corpus(world))
    assert {name: len(split) for name, split in task.splits.items()} == {
        name: len(split) for name, split in queries(world).items()
    }


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower())) - ENGLISH_STOP_WORDS


def _situation(query_id: str) -> str:
    return query_id.rpartition("-")[0]
