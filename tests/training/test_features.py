"""What a predictor reads of texts: pooled states, kept for one encoder, pooling, side and list of texts."""

from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation import features
from modeling_rabtriever.distillation.features import cached_features, read_features
from modeling_rabtriever.distillation.sides import FrozenSide, MovingSide
from tests.conftest import DOCUMENTS, QUERIES, fresh_student


def test_features_are_pooled_states_of_the_texts_alone(student: RabtrieverModel) -> None:
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        found = read_features(student, side, texts)
        read = student.processor.query_ids if side == "query" else student.processor.document_ids
        for row, ids in enumerate(read(texts)):
            (states,) = student.backbone(input_ids=torch.tensor([ids])).last_hidden_state
            torch.testing.assert_close(found[row], torch.cat([states[-1], states.mean(0)]), atol=1e-5, rtol=1e-5)


def test_features_are_computed_once(student: RabtrieverModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_features(tmp_path, student, "document", DOCUMENTS)
    torch.testing.assert_close(first, read_features(student, "document", DOCUMENTS))
    other = cached_features(tmp_path, student, "document", DOCUMENTS[::-1])
    torch.testing.assert_close(other, first.flip(0))
    monkeypatch.setattr(features, "read_features", lambda *_: pytest.fail("computed again"))
    assert torch.equal(cached_features(tmp_path, student, "document", DOCUMENTS), first)
    for path in tmp_path.glob("features-document-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"features-document-.* is broken .*; delete it to have it made again"):
        cached_features(tmp_path, student, "document", DOCUMENTS)


def test_features_of_other_sides_poolings_and_encoders_are_others(
    reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    shapes = ({}, {"predictor_type": "paper"})
    students = [fresh_student(reranker, **shape) for shape in shapes]
    students.append(fresh_student(reranker))
    students[-1].backbone.norm.weight.data.mul_(2)
    for student in students:
        for side in ("query", "document"):
            found = cached_features(tmp_path, student, side, DOCUMENTS)
            torch.testing.assert_close(found, read_features(student, side, DOCUMENTS))
    assert len(list(tmp_path.glob("features-*"))) == 6


def test_a_side_gives_the_features_of_the_rows_asked_for(student: RabtrieverModel, tmp_path: Path) -> None:
    every = read_features(student, "document", DOCUMENTS)
    rows = torch.tensor([3, 1, 2, 0])
    for side in (FrozenSide(student, "document", DOCUMENTS, tmp_path), MovingSide(student, "document", DOCUMENTS)):
        assert len(side) == len(DOCUMENTS)
        torch.testing.assert_close(side.features(rows), every[rows])
        torch.testing.assert_close(side.sample(100), every)
        torch.testing.assert_close(side.mapped(student.predictor.encode_document), student.encode_document(DOCUMENTS))


def test_a_sample_is_taken_at_equal_distances(student: RabtrieverModel) -> None:
    side = MovingSide(student, "document", DOCUMENTS)
    torch.testing.assert_close(side.sample(2), read_features(student, "document", [DOCUMENTS[0], DOCUMENTS[2]]))
    longer = MovingSide(student, "document", [*DOCUMENTS[:4], "the last"])
    expected = read_features(student, "document", [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[3]])
    torch.testing.assert_close(longer.sample(3), expected)


def test_a_step_reads_a_training_encoder_with_a_gradient(student: RabtrieverModel) -> None:
    student.backbone.requires_grad_(True)
    MovingSide(student, "query", QUERIES).features(torch.tensor([1, 0])).sum().backward()
    assert all(weight.grad is not None for weight in student.backbone.parameters())
