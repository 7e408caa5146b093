"""An exported student in sentence-transformers' own evaluator has the figures of our evaluation."""

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.evaluation import evaluate
from modeling_rabtriever.export import export_sentence_transformers
from modeling_rabtriever.tasks import load_beir

OURS = {"ndcg@10": "dot_ndcg@10", "mrr@10": "dot_mrr@10", "success@1": "dot_accuracy@1", "success@5": "dot_accuracy@5"}


def test_its_evaluator_and_ours_agree(student: RabtrieverModel, beir_folder: Path, tmp_path: Path) -> None:
    task = load_beir(beir_folder)
    split = task.split("test")
    export_sentence_transformers(student, tmp_path / "towers")
    evaluator = InformationRetrievalEvaluator(
        dict(zip(split.query_ids, split.queries, strict=True)),
        dict(zip(task.corpus_ids, task.corpus, strict=True)),
        {id_: {task.corpus_ids[row] for row in own} for id_, own in zip(split.query_ids, split.relevant, strict=True)},
        main_score_function="dot",
        write_csv=False,
    )
    model = SentenceTransformer(str(tmp_path / "towers" / "combined"), device="cpu")
    found = evaluator(model)
    measured = evaluate([student], task, "test").systems["Rabtriever"].metrics
    assert 0 < measured["ndcg@10"].mean < 1
    for ours, theirs in OURS.items():
        assert measured[ours].mean == pytest.approx(found[theirs], abs=1e-9)
