"""Teachers that only score pairs: a cross-encoder and a file of scores, distilled end to end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modeling_rabtriever.distillation.other_teachers import cross_encoder, scores_from_jsonl
from safetensors.torch import load_file
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.export import export_cross_encoder
from modeling_rabtriever.stages import distill
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir

LISTWISE = ["--listwise_weight", "1", "--mse_weight", "0", "--kl_weight", "0", "--temperature", "0.5"]


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


@pytest.fixture
def flags(beir_folder: Path, tmp_path: Path, reranker: GenerativeRerankerModel) -> list[str]:
    """A short run whose student stands on a plain language model."""
    plain = tmp_path / "plain"
    reranker.backbone.save_pretrained(plain)
    reranker.processor.tokenizer.save_pretrained(plain)
    settings = {
        "data": beir_folder, "output_dir": tmp_path / "run", "model_name_or_path": plain, "instruction": "Relevant:",
        "max_document_length": 16, "max_query_length": 16, "embedding_dim": 32, "initial_candidates": 6,
        "refresh_rounds": 2, "refresh_candidates": 3, "per_device_train_batch_size": 12, "max_steps": 120,
        "learning_rate": 5e-3, "use_cpu": "true", "report_to": "none", "disable_tqdm": "true",
    }  # fmt: skip
    return [item for name, value in settings.items() for item in (f"--{name}", str(value))] + LISTWISE


def _write_scores(path: Path, task: RetrievalTask, per_query: int = 12) -> None:
    """A teacher that knows the answer: the closer the document's row, the better."""
    with path.open("w") as file:
        for split in task.splits.values():
            for row, query_id in enumerate(split.query_ids):
                for document in range(row % 12, row % 12 + per_query):
                    score = {
                        "query-id": query_id,
                        "corpus-id": f"d{document % 12}",
                        "score": float(row % 12 - document),
                    }
                    file.write(json.dumps(score) + "\n")


def _first_hits(student: Any, task: RetrievalTask) -> float:
    split = task.split("train")
    scores = student.similarity(student.encode_query(split.queries), student.encode_document(task.corpus))
    return sum(best in found for best, found in zip(scores.argmax(1).tolist(), split.relevant, strict=True)) / len(
        split
    )


def test_a_file_of_scores_end_to_end(task: RetrievalTask, flags: list[str], tmp_path: Path) -> None:
    _write_scores(tmp_path / "scores.jsonl", task)
    folder = distill.main([*flags, "--scores", str(tmp_path / "scores.jsonl")])
    assert _first_hits(AutoModel.from_pretrained(folder), task) >= 0.9
    record = json.loads((folder.parent / "stage.json").read_text())
    assert record["teacher_pairs"] == 36 * 12
    _write_scores(tmp_path / "scores.jsonl", task, per_query=11)
    with pytest.raises(ValueError, match="holds a run with other settings: scores"):
        distill.main([*flags, "--scores", str(tmp_path / "scores.jsonl")])


def test_a_cross_encoder_teaches_what_its_reranker_does(
    task: RetrievalTask, flags: list[str], tmp_path: Path, reranker: GenerativeRerankerModel
) -> None:
    """The same model as a cross-encoder and as a reranker: the same scores, so the same student."""
    reranker.save_pretrained(tmp_path / "reranker")
    export_cross_encoder(reranker, tmp_path / "cross-encoder")
    scorer = cross_encoder(str(tmp_path / "cross-encoder"), task.split("train").queries, task.corpus, "cpu")
    rows, documents = torch.tensor([0, 7, 30]), torch.tensor([3, 3, 11])
    pairs = [
        (task.split("train").queries[q], task.corpus[d]) for q, d in zip(rows.tolist(), documents.tolist(), strict=True)
    ]
    torch.testing.assert_close(scorer.judge(rows, documents)["logits"], reranker.predict(pairs), atol=1e-5, rtol=1e-5)

    # Nothing is drawn, and rounding stays rounding, which Adam would blow up to whole steps.
    short = [*flags, "--max_steps", "30", "--initial_candidates", "12", "--refresh_rounds", "0", "--optim", "sgd"]
    from_pairs = AutoModel.from_pretrained(distill.main([*short, "--cross_encoder", str(tmp_path / "cross-encoder")]))
    own = short.index("--model_name_or_path")
    prompt = [short.index(f"--{name}") for name in ("instruction", "max_document_length", "max_query_length")]
    dropped = {place + step for place in (own, *prompt) for step in (0, 1)}
    kept = [item for place, item in enumerate(short) if place not in dropped]
    from_states = AutoModel.from_pretrained(
        distill.main([*kept, "--teacher", str(tmp_path / "reranker"), "--output_dir", str(tmp_path / "own")])
    )
    torch.testing.assert_close(
        from_pairs.encode_document(task.corpus), from_states.encode_document(task.corpus), atol=1e-3, rtol=1e-3
    )


def test_a_pickled_cross_encoder_is_not_read(
    task: RetrievalTask, tmp_path: Path, reranker: GenerativeRerankerModel
) -> None:
    folder = tmp_path / "cross-encoder"
    export_cross_encoder(reranker, folder)
    (weights,) = folder.glob("*.safetensors")
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        cross_encoder(str(folder), task.split("train").queries, task.corpus, "cpu")


def test_unusable_teachers_are_refused(task: RetrievalTask, flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    split = task.split("train")
    good = {"query-id": "train-find-0", "corpus-id": "d0", "score": 1.0}
    for row, message in (
        ({**good, "corpus-id": "d99"}, "line 1 names document 'd99', which the corpus lacks"),
        ({**good, "score": "high"}, "line 1 is .*; accepted: an object with query-id"),
        ({"query-id": "a"}, "line 1 is .*; accepted: an object with query-id"),
        ({**good, "score": "1.0"}, "line 1 is .*; accepted: an object with query-id"),
        ({**good, "score": True}, "line 1 is .*; accepted: an object with query-id"),
        ({**good, "query-id": None}, "line 1 is .*; accepted: an object with query-id"),
        ({**good, "corpus-id": ["d0"]}, "line 1 is .*; accepted: an object with query-id"),
        ({**good, "score": 10**400}, "line 1 has the score 1000.*; accepted: a number fp32 holds"),
        ({**good, "score": -1e39}, "line 1 has the score -1e.39; accepted: a number fp32 holds"),
        ({**good, "score": float("nan")}, "line 1: broken JSON .NaN is no JSON.; accepted"),
        ({**good, "query-id": "\ud800"}, "line 1: broken text .half of a surrogate pair"),
        (b"\xff", "line 1: no UTF-8 .byte 0 of the line."),
        (b"[" * 100_000, "line 1: broken JSON .objects or lists nested too deep.; accepted: at most 64 levels"),
    ):
        path.write_bytes(row if isinstance(row, bytes) else (json.dumps(row) + "\n").encode())
        with pytest.raises(ValueError, match=message):
            scores_from_jsonl(path, task, split)
    path.write_text('\ufeff\n{"query-id": "train-find-0", "corpus-id": "d0", "score": 1}\r\n\n')
    assert scores_from_jsonl(path, task, split).pools[0] == [0]
    path.write_text(2 * (json.dumps(good) + "\n"))
    with pytest.raises(ValueError, match="line 2 scores 'train-find-0', 'd0' a second time"):
        scores_from_jsonl(path, task, split)
    with pytest.raises(ValueError, match="is no file; accepted: JSON lines"):
        scores_from_jsonl(tmp_path / "none.jsonl", task, split)
    with pytest.raises(ValueError, match="cross_encoder and scores are both given"):
        distill.main([*flags, "--scores", str(path), "--cross_encoder", "x"])
    with pytest.raises(ValueError, match="document_anchors is 2, but .* accepted: 0 with model_name_or_path"):
        distill.main([*flags, "--scores", str(path), "--document_anchors", "2"])
    with pytest.raises(ValueError, match="accepted: only with cross_encoder or scores"):
        distill.main(flags)
    with pytest.raises(ValueError, match="instruction given, but the student reads its teacher's prompt"):
        distill.main(["--data", str(tmp_path), "--output_dir", str(tmp_path), "--instruction", "Why?"])
