"""The command that distils: a student with anchors."""

from pathlib import Path

import pytest
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.stages import distill
from modeling_rabtriever.tasks.beir import load_beir


def test_a_student_with_anchors_from_the_command_line(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    flags = {"data": beir_folder, "output_dir": tmp_path, "teacher": tmp_path / "teacher", "query_anchors": 3}
    flags |= {"document_anchors": 2}
    flags |= {"embedding_dim": 16, "initial_candidates": 4, "refresh_rounds": 0, "max_steps": 2, "save_strategy": "no"}
    argv = [item for name, value in flags.items() for item in (f"--{name}", str(value))]
    folder = distill.main([*argv, "--eval_strategy", "no"])
    student = AutoModel.from_pretrained(folder)
    assert (len(student.config.query_anchors), len(student.config.document_anchors)) == (3, 2)
    task = load_beir(beir_folder)
    known = reranker.processor.document_ids(task.corpus), reranker.processor.query_ids(task.split("train").queries)
    assert all(anchor in known[0] for anchor in student.config.query_anchors)
    assert all(anchor in known[1] for anchor in student.config.document_anchors)
    assert student.encode_query("a lost dog").shape == (1, 16)
    with pytest.raises(ValueError, match="query_anchors is -1; accepted: a whole number of at least 0"):
        distill.main([*argv, "--query_anchors", "-1"])
