"""The command that distils: a student that reads queries behind documents of its corpus."""

from pathlib import Path

import pytest
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from tests.conftest import DOCUMENTS
from training import distill


def test_anchors_are_documents_of_the_corpus(processor: RabtrieverProcessor) -> None:
    prefixes = processor.document_ids(DOCUMENTS)
    drawn = distill.drawn_anchors(2, processor, [*DOCUMENTS, *DOCUMENTS], seed=3)
    assert drawn == distill.drawn_anchors(2, processor, [*DOCUMENTS, *DOCUMENTS], seed=3)
    assert len(drawn) == 2 and drawn[0] != drawn[1] and all(anchor in prefixes for anchor in drawn)
    assert distill.drawn_anchors(0, processor, DOCUMENTS, seed=3) == []
    everything = distill.drawn_anchors(len(DOCUMENTS), processor, DOCUMENTS, seed=3)
    assert sorted(everything) == sorted(prefixes)
    message = f"query_anchors is {len(DOCUMENTS) + 1}; accepted: at most {len(DOCUMENTS)}"
    with pytest.raises(ValueError, match=message):
        distill.drawn_anchors(len(DOCUMENTS) + 1, processor, [*DOCUMENTS, *DOCUMENTS], seed=3)


def test_a_student_with_anchors_from_the_command_line(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    flags = {"data": beir_folder, "output_dir": tmp_path, "teacher": tmp_path / "teacher", "query_anchors": 3}
    flags |= {"embedding_dim": 16, "initial_candidates": 4, "refresh_rounds": 0, "max_steps": 2, "save_strategy": "no"}
    argv = [item for name, value in flags.items() for item in (f"--{name}", str(value))]
    folder = distill.main([*argv, "--eval_strategy", "no"])
    student = AutoModel.from_pretrained(folder)
    assert len(student.config.query_anchors) == 3
    assert student.encode_query("a lost dog").shape == (1, 16)
    with pytest.raises(ValueError, match="query_anchors is -1; accepted: 0 or more"):
        distill.main([*argv, "--query_anchors", "-1"])
