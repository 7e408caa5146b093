"""The teacher's trainer: TRL's loss on the answer token, the listwise objective, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from trl import SFTTrainer

from modeling_rabtriever import GenerativeRerankerModel
from tests.training.conftest import GROUPS
from training.losses import listwise_cross_entropy
from training.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from training.tasks.beir import load_beir

MakeTrainer: TypeAlias = Callable[..., RerankerTrainer]


def _batch(trainer: RerankerTrainer) -> dict[str, torch.Tensor]:
    return next(iter(trainer.get_train_dataloader()))


def test_sft_loss_is_trls(teacher_trainer: MakeTrainer) -> None:
    trainer = teacher_trainer()
    batch = _batch(trainer)
    ours = trainer.compute_loss(trainer.model, dict(batch))
    del batch["prefix_lengths"]
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_listwise_loss_is_the_softmax_over_log_odds_of_a_group(
    reranker: GenerativeRerankerModel, beir_folder: Path, teacher_trainer: MakeTrainer
) -> None:
    trainer = teacher_trainer(objective="listwise")
    loss = trainer.compute_loss(trainer.model, _batch(trainer))
    task = load_beir(beir_folder)
    log_odds = torch.stack(
        [
            reranker.predict([(task.split("train").queries[query], task.corpus[row]) for row in group])
            for query, group in zip(GROUPS.queries, GROUPS.documents, strict=True)
        ]
    )
    assert loss.item() == pytest.approx(listwise_cross_entropy(log_odds).item(), rel=1e-4)
    expected = (log_odds.argmax(1) == 0).float().mean().item()
    assert trainer._metrics["eval" if not trainer.model.training else "train"]["leads_group"][-1] == expected


@pytest.mark.parametrize("objective", ["sft", "listwise"])
def test_training_changes_the_wrapped_model(
    reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer, objective: str
) -> None:
    query, documents = "find me the ant", ["a story about the ant", "a story about the goat"]
    before = reranker.predict([(query, document) for document in documents])
    trainer = teacher_trainer(objective=objective, learning_rate=1e-2, num_train_epochs=1)
    trainer.train()
    after = reranker.eval().predict([(query, document) for document in documents])
    assert not torch.allclose(before, after)
    record = next(record for record in trainer.state.log_history if "train_loss" in record)
    assert record["train_loss"] > 0


def test_gradient_accumulation_averages(reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer) -> None:
    """Two half batches accumulated move the weights as one whole batch does."""
    start = {name: weight.clone() for name, weight in reranker.state_dict().items()}
    moved = []
    for size, steps in ((16, 1), (8, 2)):
        reranker.load_state_dict(start)
        teacher_trainer(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=1e9,
            lr_scheduler_type="constant",
        ).train()
        moved.append(reranker.answer_rows)
    torch.testing.assert_close(moved[0], moved[1], atol=1e-5, rtol=1e-4)


def test_nan_loss_stops_training(reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer) -> None:
    trainer = teacher_trainer()
    reranker.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the teacher's loss is not finite"):
        trainer.train()


def test_batches_that_split_groups_are_refused(teacher_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="per_device_train_batch_size is 6; accepted: a multiple of the group size 4"):
        teacher_trainer(per_device_train_batch_size=6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 64}, "max_length is 64; accepted: set max_document_length"),
        ({"objective": "ranknet"}, "objective is 'ranknet'; accepted: sft, listwise"),
        ({"joint_weight": -1.0}, "joint_weight is -1.0; accepted: 0 or more"),
        ({"joint_learning_rate": 0.0}, "joint_learning_rate is 0.0; accepted: null or a number above 0"),
        ({"document_lm_weight": float("nan")}, "document_lm_weight is nan; accepted: 0 or more"),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RerankerTrainingConfig(output_dir=str(tmp_path), **settings)
