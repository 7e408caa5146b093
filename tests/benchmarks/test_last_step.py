"""The baseline that reads the last step alone."""

from benchmarks.last_step import AfterLastStep, last_step, last_step_system
from modeling_rabtriever.tasks.beir import RetrievalTask, Split

DONE = "Task: Add paper\nSteps done so far: "
QUERIES = [f"{DONE}none", f"{DONE}1. Walk to 2. floor, 2. Find paper", f"{DONE}1. Find paper", f"{DONE}1. Stop"]


def test_the_last_step_is_read() -> None:
    assert [last_step(query) for query in QUERIES] == ["none", "Find paper", "Find paper", "Stop"]


def test_documents_are_counted_after_the_same_step_and_ties_go_to_the_prior() -> None:
    score = AfterLastStep(QUERIES, [{0: 1}, {1: 1}, {1: 1, 2: 1}, {2: 1}], 4)
    found = score([f"{DONE}1. Sit, 2. Find paper", f"{DONE}1. Unknown"])
    assert found.argsort(descending=True, stable=True)[:, :2].tolist() == [[1, 2], [1, 2]]
    assert found[0].floor().tolist() == [0, 2, 1, 0] and found[1].floor().tolist() == [0, 0, 0, 0]


def test_only_tasks_of_steps_have_it() -> None:
    def task(queries: list[str]) -> RetrievalTask:
        split = Split("train", ["a"], queries, [{0: 1}])
        return RetrievalTask("steps", ["d"], ["Find paper"], {"train": split})

    assert [system.name for system in last_step_system(task([QUERIES[1]]))] == ["most frequent after the last step"]
    assert last_step_system(task(["I spilled my drink"])) == []
