"""The examples of docs/stores.md, run as they stand on a small corpus; each store finds what our own search finds."""

import re
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.retrieval import encode_corpus
from modeling_rabtriever.retrieval.documents import Document

PAGE = Path(__file__).parents[1] / "docs" / "stores.md"
PARTS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
BLOCKS = {part.partition("\n")[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL) for part in PARTS}
CODE = {name: blocks[0] for name, blocks in BLOCKS.items() if blocks}
START = CODE.pop(PARTS[0].partition("\n")[0])
LIBRARIES = {"FAISS": "faiss", "LanceDB": "lancedb", "Qdrant": "qdrant_client", "pgvector": None}
TEXTS = ["bring the sponge", "bring a lamp to the attic", "it's the doctor's", "call a doctor", "find the ladder"]


@pytest.fixture
def names(student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    student.save_pretrained("runs/household/student/model")
    encode_corpus(student, [Document(f"d{row}", text, {}) for row, text in enumerate(TEXTS)], "runs/vectors")
    found: dict[str, Any] = {}
    exec(START, found)
    return found


def test_every_store_is_tried() -> None:
    assert list(CODE) == list(LIBRARIES)


@pytest.mark.parametrize("store", LIBRARIES)
@pytest.mark.filterwarnings("default")  # of the stores' own libraries
def test_a_store(store: str, names: dict[str, Any], student: RabtrieverModel) -> None:
    if LIBRARIES[store] is not None:
        pytest.importorskip(LIBRARIES[store])
    exec(CODE[store], names)
    scores = student.similarity(student.encode_query(["In the kitchen: I spilled my drink."]), vectors(student))[0]
    expected = [f"d{row}" for row in scores.argsort(descending=True).tolist()]
    if store != "pgvector":
        assert names["best"] == expected[:3]
        return
    sql = Path("runs/documents.sql").read_text()
    rows = re.findall(r"INSERT INTO documents VALUES \('(d\d)', '((?:[^']|'')*)', '\[(.*?)\]'\);", sql)
    assert [(id_, text.replace("''", "'")) for id_, text, _ in rows] == [(f"d{n}", t) for n, t in enumerate(TEXTS)]
    query = [float(number) for number in re.search(r"<#> '\[(.*?)\]'", names["ask"])[1].split(",")]
    found = {id_: sum(a * float(b) for a, b in zip(query, numbers.split(","), strict=True)) for id_, _, numbers in rows}
    assert sorted(found, key=found.get, reverse=True) == expected  # what ORDER BY embedding <#> query gives


def vectors(student: RabtrieverModel) -> Any:
    return student.encode_document(TEXTS)
