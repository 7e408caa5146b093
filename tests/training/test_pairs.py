"""The teacher's training pairs: groups, negatives, and the tokens TRL reads."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from modeling_rabtriever import RabtrieverProcessor
from modeling_rabtriever.reranking.pairs import NegativeArguments, draw_groups, pair_dataset
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


def test_each_pass_holds_every_judged_pair_once(task: RetrievalTask) -> None:
    train = task.split("train")
    groups = list(itertools.islice(draw_groups(task, train, NegativeArguments(3, 0.0, 5), seed=0), 2 * len(train)))
    for pass_ in (groups[: len(train)], groups[len(train) :]):
        assert sorted(query for query, _ in pass_) == list(range(len(train)))
    for query, documents in groups:
        assert documents[0] in train.relevant[query]
        assert len(documents) == len(set(documents)) == 4
        assert not set(documents[1:]) & set(train.relevant[query])
    assert groups[: len(train)] != groups[len(train) :]


def test_seed_decides_the_draw(task: RetrievalTask) -> None:
    def draw(seed: int) -> list[tuple[int, list[int]]]:
        return list(
            itertools.islice(draw_groups(task, task.split("train"), NegativeArguments(3, 0.5, 5), seed=seed), 20)
        )

    assert draw(1) == draw(1) != draw(2)


def test_all_negatives(task: RetrievalTask) -> None:
    query, documents = next(draw_groups(task, task.split("train"), NegativeArguments(None, 0.5, 5), seed=0))
    assert sorted(documents) == list(range(12))
    assert documents[0] in task.split("train").relevant[query]


def test_mined_negatives_share_words_with_the_query(task: RetrievalTask) -> None:
    """With two documents about each animal, BM25 finds the other one."""
    doubled = RetrievalTask(
        task.name, [*task.corpus_ids, *(f"x{i}" for i in range(12))], [*task.corpus, *task.corpus], task.splits
    )
    mined = Counter()
    for query, documents in itertools.islice(
        draw_groups(doubled, task.split("train"), NegativeArguments(1, 1.0, 2), seed=0), 36
    ):
        (positive,) = task.split("train").relevant[query]
        mined[documents[1] == positive + 12] += 1
    assert mined[True] == 36


def test_too_many_negatives_are_refused(task: RetrievalTask) -> None:
    with pytest.raises(ValueError, match="12 negatives per positive; accepted: 1 to 11"):
        next(draw_groups(task, task.split("train"), NegativeArguments(12, 0.0, 5), seed=0))


def test_rows_hold_prefix_suffix_and_answer(task: RetrievalTask, processor: RabtrieverProcessor) -> None:
    train = task.split("train")
    rows = pair_dataset([(4, [4, 7]), (0, [0, 1])], train, task.corpus, processor)
    assert len(rows) == 4
    for row, (query, document, answer) in zip(
        rows,
        [(4, 4, processor.true_token_id), (4, 7, processor.false_token_id), (0, 0, 1), (0, 1, 2)],
        strict=True,
    ):
        prompt = processor.document_ids(task.corpus[document])[0] + processor.query_ids(train.queries[query])[0]
        assert row["input_ids"] == [*prompt, answer]
        assert row["labels"] == [-100] * len(prompt) + [answer]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives_per_positive": 0}, "negatives_per_positive is 0; accepted"),
        ({"hard_negative_fraction": 1.5}, "hard_negative_fraction is 1.5; accepted: 0 to 1"),
    ],
)
def test_unusable_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NegativeArguments(**settings)  # type: ignore[arg-type]
