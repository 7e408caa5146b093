"""A Rabtriever evaluated by MTEB, on a local task."""

from typing import Any

import mteb
import pytest
import torch
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import SearchProtocol

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.evaluation.metrics import query_metrics
from modeling_rabtriever.evaluation.mteb_search import RabtrieverSearch

CORPUS = {"d0": "bring the sponge", "d1": "bring a lamp to the attic", "d2": "call a doctor", "d3": "open the window"}
QUERIES = {"q0": "I spilled my drink", "q1": "it is dark up here", "q2": "I cannot reach the shelf"}
RELEVANT = {"q0": {"d0": 1}, "q1": {"d1": 2, "d3": 1}, "q2": {"d2": 1}}


def local_task(top_ranked: dict[str, list[str]] | None) -> Any:
    class LocalTask(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="LocalBeir", dataset={"path": "local/none", "revision": "x"}, description="d", type="Retrieval",
            category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="ndcg_at_10", reference=None, date=None, domains=None, task_subtypes=None, license=None,
            annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
        )  # fmt: skip

        def load_data(self, **_: Any) -> None:
            corpus = [{"id": id_, "title": "", "text": text} for id_, text in CORPUS.items()]
            queries = [{"id": id_, "text": text} for id_, text in QUERIES.items()]
            data = RetrievalSplitData(
                corpus=Dataset.from_list([*corpus, {"id": "blank", "title": "", "text": " "}]),
                queries=Dataset.from_list(queries),
                relevant_docs=RELEVANT,
                top_ranked=top_ranked,
            )
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    return LocalTask()


@pytest.mark.parametrize("top_ranked", [None, {"q0": ["d1", "d0"], "q1": ["d2", "d3"], "q2": ["d0", "d1", "blank"]}])
@pytest.mark.filterwarnings("ignore")  # MTEB's own
def test_mteb_ranks_as_the_model_does(student: RabtrieverModel, top_ranked: dict[str, list[str]] | None) -> None:
    model = RabtrieverSearch(student, "local/student")
    assert isinstance(model, SearchProtocol)
    result = mteb.evaluate(model, local_task(top_ranked), cache=None, co2_tracker=False, show_progress_bar=False)
    scores = student.similarity(
        student.encode_query(list(QUERIES.values())), student.encode_document(list(CORPUS.values()))
    )
    ids, run = list(CORPUS), []
    for row, query in enumerate(QUERIES):
        order = [ids[place] for place in scores[row].argsort(descending=True).tolist()]
        run.append([id_ for id_ in order if top_ranked is None or id_ in top_ranked[query]])
    expected = query_metrics(run, list(RELEVANT.values()), ["ndcg@10"])["ndcg@10"].mean()
    assert result.task_results[0].get_score() == pytest.approx(expected, abs=1e-5)
    assert model.mteb_model_meta.embed_dim == 24


def test_only_the_best_are_returned(student: RabtrieverModel) -> None:
    model = RabtrieverSearch(student, "local/student")
    model.index({"id": id_, "text": text} for id_, text in CORPUS.items())
    found = model.search([{"id": "q0", "text": QUERIES["q0"]}], top_k=2)["q0"]
    scores = student.similarity(student.encode_query([QUERIES["q0"]]), student.encode_document(list(CORPUS.values())))
    best = scores[0].topk(2)
    assert list(found) == [list(CORPUS)[place] for place in best.indices]
    torch.testing.assert_close(torch.tensor(list(found.values())), best.values, atol=1e-5, rtol=0)
