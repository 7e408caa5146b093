from pathlib import Path

import torch

from benchmarks.concat_ablation import ConcatModel, concat_trainer
from modeling_rabtriever import GenerativeRerankerModel
from tests.conftest import DOCUMENTS, QUERIES


def test_scores_are_those_of_the_mlp_on_each_pair(reranker: GenerativeRerankerModel) -> None:
    model = ConcatModel.from_teacher(reranker)
    layers = model.predictor
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
    for row, query in enumerate(model.query_features(QUERIES)):
        for column, document in enumerate(model.document_features(DOCUMENTS)):
            joined = torch.cat([query, document])
            weight = torch.cat([layers.of_query.weight, layers.of_document.weight], dim=1)
            state = layers.to_state((weight @ joined + layers.of_query.bias + layers.of_document.bias).relu())
            torch.testing.assert_close(scores[row, column], state @ model.answer_direction, atol=1e-5, rtol=1e-4)


def test_the_ablation_trains_beside_the_rest(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    more = tmp_path / "more.jsonl"
    more.write_text('{"_id": "more", "text": "where is the ant"}\n')
    settings = {
        "data": beir_folder, "output_dir": tmp_path, "states": tmp_path / "states", "teacher": tmp_path / "teacher",
        "unjudged_queries": more, "initial_candidates": 12, "refresh_rounds": 0, "max_steps": 60,
        "per_device_train_batch_size": 12, "learning_rate": 5e-3, "temperature": 0.2, "use_cpu": "true",
        "report_to": "none", "disable_tqdm": "true", "save_strategy": "no", "logging_steps": 5,
    }  # fmt: skip
    argv = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
    trainer = concat_trainer(reranker, argv)
    assert len(trainer.train_dataset) == 37  # the unjudged query among them
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < 0.5 * losses[0]
