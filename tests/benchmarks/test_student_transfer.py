import json

import torch

from benchmarks.student_transfer import held_out, views, write_without
from modeling_rabtriever.tasks.beir import RetrievalTask, Split, load_beir


def task() -> RetrievalTask:
    names = [f"{thing}-{place}" for thing in ("cup", "lamp", "mop", "pan", "saw") for place in ("attic", "hall")]
    split = [
        Split(name, ["q0", "q1"], ["first", "second"], [{0: 1, 4: 1}, {4: 1}]) for name in ("train", "dev", "test")
    ]
    return RetrievalTask("things", names, [f"bring {name}" for name in names], {part.name: part for part in split})


def test_a_fifth_is_held_out_an_object_with_all_its_places():
    for seed in range(5):
        rows = held_out(task(), seed, by_object=True)
        assert len(rows) == 2 and rows[0] % 2 == 0 and rows[1] == rows[0] + 1
        assert len(held_out(task(), seed, by_object=False)) == 2


def test_what_is_held_out_is_gone_with_the_queries_it_alone_answers(tmp_path):
    left = load_beir(write_without(task(), [4, 5], tmp_path / "left"))
    (lost,) = (tmp_path / "left" / "unjudged.jsonl").read_text().splitlines()
    assert json.loads(lost) == {"_id": "q1", "text": "second"}
    assert len(left.corpus) == 8 and "mop-attic" not in left.corpus_ids
    assert left.split("train").queries == ["first"] and left.split("train").relevant == [{0: 1}]


def test_views_rank_the_held_out_alone_and_without_other_answers():
    scores = torch.tensor([[9.0, 1, 2, 3, 5, 4, 0, 0, 0, 0], [0.0, 8, 0, 0, 2, 3, 0, 0, 0, 0], [1.0] * 10])
    found = views(scores, [{0: 1, 4: 1}, {4: 1}, {0: 1}], [4, 5])
    unseen, among = found["unseen"]
    assert unseen.tolist() == [[5, 4], [2, 3]] and among == [{0: 1}, {0: 1}]  # the third query has no held-out answer
    full, answers = found["full"]
    assert answers == [{4: 1}, {4: 1}]
    assert full.argmax(1).tolist() == [4, 1]  # document 0, another answer, is out of the first query's way
