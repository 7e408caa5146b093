"""Texts and labels of a task that are not Python lists, but behave like them."""

import copy
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modeling_rabtriever.retrieval import distinct
from modeling_rabtriever.tasks import texts as texts_file
from modeling_rabtriever.tasks.id_rows import IdRows
from modeling_rabtriever.tasks.relevance import Relevance
from modeling_rabtriever.tasks.texts import Texts, columns

LIST = ["bring the sponge", "", "être à l'étage", "🙂 x", "call a doctor"]
LABELS: list[dict[int, int]] = [{3: 1, 1: 2}, {}, {0: 7}]


@pytest.fixture(params=[64 << 20, 8], ids=["in memory", "mapped"])
def texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Texts:
    monkeypatch.setattr(texts_file, "IN_MEMORY", request.param)
    monkeypatch.setattr(texts_file, "_BLOCK", 2)
    return Texts(iter(LIST))


def test_texts_are_a_list_that_does_not_change(texts: Texts) -> None:
    assert list(texts) == LIST and [texts[row] for row in range(len(texts))] == LIST and len(texts) == 5
    assert texts == LIST and texts == LIST and texts == tuple(LIST) and texts != LIST[:4] and texts != [*LIST[:4], "x"]
    assert texts[-1] == LIST[-1] and texts[1:4] == LIST[1:4] and texts[::-2] == LIST[::-2]
    assert texts.take(np.array([4, 0, 4])) == [LIST[4], LIST[0], LIST[4]]
    assert texts.index("call a doctor") == 4 and "🙂 x" in texts and "y" not in texts
    for same in (copy.deepcopy(texts), pickle.loads(pickle.dumps(texts[1:]))):
        assert same in (LIST, LIST[1:])
    with pytest.raises(IndexError):
        texts[5]
    with pytest.raises(TypeError):
        hash(texts)


def test_texts_in_memory_become_a_list_that_every_library_takes(texts: Texts) -> None:
    assert texts.plain() == LIST
    assert isinstance(texts.plain(), list) == (texts_file.IN_MEMORY > 8)


def test_columns_lie_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_file, "_BLOCK", 2)
    ids, texts = columns(((str(row), text) for row, text in enumerate(LIST)), 2)
    assert ids == list("01234") and texts == LIST
    assert [*map(len, columns([], 2))] == [0, 0]


def test_the_file_has_no_name_and_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_file, "IN_MEMORY", 8)
    monkeypatch.setattr(texts_file.tempfile, "tempdir", str(tmp_path))
    assert Texts(LIST) == LIST and not any(tmp_path.iterdir())
    monkeypatch.setattr(texts_file.tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OSError, match=r"none cannot be written \(.*\); accepted: a folder with room"):
        Texts(LIST)


def test_labels_are_dictionaries(tmp_path: Path) -> None:
    labels = Relevance.of(LABELS)
    assert labels == LABELS and labels == LABELS and [*labels] == LABELS and labels != LABELS[:2]
    assert list(labels[0]) == [3, 1] and labels[-1] == {0: 7} and labels[1:] == LABELS[1:]
    assert labels.with_unlabelled(2) == [*LABELS, {}, {}] and Relevance.of(labels) is labels
    with pytest.raises(IndexError):
        labels[3]


def test_ids_are_found() -> None:
    ids = [f"d{row}" for row in random.Random(0).sample(range(10_000), 500)]
    asked = [ids[7], "nothing", ids[499], "", ids[7]]
    assert IdRows(ids).find(asked).tolist() == [7, -1, 499, -1, 7]
    assert IdRows([]).find(asked).tolist() == [-1] * 5 and IdRows(ids).find([]).tolist() == []


def test_an_id_with_the_hash_of_another_is_not_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling_rabtriever.tasks.id_rows.hashes", lambda texts: np.array([len(t) for t in texts]))
    assert IdRows(["a", "bb"]).find(["bb", "b", "a", "cc"]).tolist() == [1, -1, 0, -1]


def test_seen_texts_are_found_after_they_are_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_RECENT", 4)
    rng, seen, naive = random.Random(1), distinct.SeenTexts(), set[str]()
    for text in (str(rng.randrange(40)) for _ in range(200)):
        assert seen.add(text) == (text not in naive)
        naive.add(text)


def test_a_text_is_read_once() -> None:
    def once() -> Iterator[str]:
        yield from LIST

    assert Texts(once()) == LIST
