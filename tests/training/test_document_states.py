"""Language modelling on the documents, beside the teacher's objective."""

from collections.abc import Callable

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.reranking.losses import document_lm_loss
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainer


def test_document_lm_loss_is_the_models_own_on_the_documents_alone(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    batch = next(iter(teacher_trainer().get_train_dataloader()))
    output = reranker.backbone(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    lengths = batch["prefix_lengths"]
    in_document = torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]
    loss = document_lm_loss(reranker, output.hidden_states[-1], batch["input_ids"], in_document)
    total, tokens = 0.0, 0
    for ids, length in zip(batch["input_ids"], lengths.tolist(), strict=True):
        document = ids[None, :length]
        total += reranker.backbone(document, labels=document).loss.item() * (length - 1)
        tokens += length - 1
    assert loss.item() == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("objective", ["sft", "listwise"])
def test_the_loss_is_the_weighted_sum(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer], objective: str
) -> None:
    losses = []
    for weight in (0.0, 0.25):
        trainer = teacher_trainer(objective=objective, document_lm_weight=weight)
        batch = next(iter(trainer.get_train_dataloader()))
        losses.append(trainer.compute_loss(trainer.model, batch).item())
    output = reranker.backbone(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    in_document = torch.arange(batch["input_ids"].shape[1]) < batch["prefix_lengths"][:, None]
    term = document_lm_loss(reranker, output.hidden_states[-1], batch["input_ids"], in_document).item()
    assert losses[1] - losses[0] == pytest.approx(0.25 * term, rel=1e-4)
