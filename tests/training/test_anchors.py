"""Which texts become anchors."""

from typing import Any

import pytest
from modeling_rabtriever.distillation.anchors import drawn_anchors

from modeling_rabtriever import RabtrieverProcessor
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from tests.conftest import DOCUMENTS, QUERIES


def test_anchors_are_texts_of_the_task(processor: RabtrieverProcessor) -> None:
    corpus = [*DOCUMENTS, *DOCUMENTS]  # copies are no other anchors
    drawn = drawn_anchors(processor, corpus, QUERIES, 3, query_anchors=2, document_anchors=1)
    assert drawn == drawn_anchors(processor, corpus, QUERIES, 3, query_anchors=2, document_anchors=1)
    assert len(drawn["query_anchors"]) == 2 and drawn["query_anchors"][0] != drawn["query_anchors"][1]
    assert all(anchor in processor.document_ids(DOCUMENTS) for anchor in drawn["query_anchors"])
    assert drawn["document_anchors"][0] in processor.query_ids(QUERIES)
    assert drawn_anchors(processor, corpus, QUERIES, 3) == {"query_anchors": [], "document_anchors": []}


@pytest.mark.parametrize("name", ["query_anchors", "document_anchors"])
def test_more_anchors_than_texts_are_refused(processor: RabtrieverProcessor, name: str) -> None:
    most = {"query_anchors": len(DOCUMENTS), "document_anchors": len(QUERIES)}[name]
    texts = ([*DOCUMENTS, *DOCUMENTS], [*QUERIES, *QUERIES])
    assert len(drawn_anchors(processor, *texts, 3, **{name: most})[name]) == most
    with pytest.raises(ValueError, match=f"{name} is {most + 1}; accepted: at most {most}"):
        drawn_anchors(processor, *texts, 3, **{name: most + 1})


@pytest.mark.parametrize("count", [-1, 2.5, None, True, "2"])
def test_what_is_no_number_of_anchors_is_refused(processor: RabtrieverProcessor, count: Any) -> None:
    for name in ("query_anchors", "document_anchors"):
        with pytest.raises(ValueError, match=f"{name} is {count!r}; accepted: a whole number of at least 0"):
            drawn_anchors(processor, DOCUMENTS, QUERIES, 3, **{name: count})
        with pytest.raises(ValueError, match=f"{name} is {count!r}; accepted"):
            StudentArguments(**{name: count})
