"""The terms that give the teacher's document states a use: each against its definition, and gone at the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.reranking.document_states import detach_joint_predictor, document_lm_loss, joint_scores
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainer
from modeling_rabtriever.tasks.beir import load_beir
from tests.training.conftest import GROUPS

WEIGHTS = {"joint_weight": 0.5, "document_lm_weight": 0.25}


def test_joint_scores_are_those_of_a_student_that_reads_both_sides_apart(
    reranker: GenerativeRerankerModel, beir_folder: Path, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    trainer = teacher_trainer(joint_weight=1.0)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) == 16 + 4 and len(batch["prefix_lengths"]) == 16
    output = trainer.model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    states = output.hidden_states[-1]
    in_document = torch.arange(states.shape[1]) < batch["prefix_lengths"][:, None]
    scores = joint_scores(reranker, states, in_document, batch["attention_mask"][16:])
    predictor = trainer.model.joint_predictor
    detach_joint_predictor(reranker)
    student = RabtrieverModel.from_teacher(reranker)
    student.predictor = predictor
    task = load_beir(beir_folder)
    for row, (query, documents) in enumerate(zip(GROUPS.queries, GROUPS.documents, strict=True)):
        vectors = student.encode_document([task.corpus[document] for document in documents])
        expected = student.similarity(student.encode_query([task.split("train").queries[query]]), vectors)[0]
        torch.testing.assert_close(scores[row], expected, atol=1e-5, rtol=1e-4)


def test_document_lm_loss_is_the_models_own_on_the_documents_alone(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    trainer = teacher_trainer()
    batch = next(iter(trainer.get_train_dataloader()))
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


def test_the_loss_is_the_weighted_sum(teacher_trainer: Callable[..., RerankerTrainer]) -> None:
    losses = []
    for changes in ({}, {"joint_weight": 0.0}, {"document_lm_weight": 0.0}, {"joint_weight": 1.0}):
        torch.manual_seed(3)
        trainer = teacher_trainer(**{**WEIGHTS, **changes})
        losses.append(trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).item())
    both, without_joint, without_lm, more_joint = losses
    joint = 2 * (more_joint - both)
    assert joint > 0
    assert both - without_joint == pytest.approx(0.5 * joint, rel=1e-4)
    assert both - without_lm > 0


def test_gradients_reach_backbone_and_predictor(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    trainer = teacher_trainer(joint_weight=1.0)
    batch = next(iter(trainer.get_train_dataloader()))
    output = trainer.model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    states = output.hidden_states[-1]
    in_document = torch.arange(states.shape[1]) < batch["prefix_lengths"][:, None]
    joint_scores(reranker, states, in_document, batch["attention_mask"][16:])[0, 0].backward()
    layer = reranker.backbone.base_model.layers[0].mlp.down_proj.weight
    assert layer.grad is not None and layer.grad.abs().sum() > 0
    assert trainer.model.joint_predictor.document_map.weight.grad.abs().sum() > 0


def test_the_predictor_resumes_with_the_backbone_and_is_dropped_at_the_end(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer], tmp_path: Path
) -> None:
    settings = {**WEIGHTS, "learning_rate": 1e-2, "save_steps": 1, "max_steps": 2}
    trainer = teacher_trainer(**settings)
    trainer.train()
    assert {"joint_leads_group", "leads_group"} <= trainer.state.log_history[-1].keys()
    trained = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    detach_joint_predictor(reranker)
    resumed = teacher_trainer(**{**settings, "max_steps": 3})
    resumed._load_from_checkpoint(str(tmp_path / "checkpoints" / "checkpoint-2"))
    torch.testing.assert_close(resumed.model.state_dict(), trained)
    detach_joint_predictor(reranker)
    assert not any("joint" in name for name in reranker.state_dict())


def test_the_predictor_is_trained_in_full_beside_lora(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = teacher_trainer(**WEIGHTS, learning_rate=1e-2, peft_config=lora)
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert any("joint_predictor" in name and "lora" not in name for name in trained)
    assert not any("joint_predictor" in name and "lora" in name for name in trained)
    trainer.train()
    reranker.backbone = trainer.model.merge_and_unload()
    detach_joint_predictor(reranker)
    assert not any("joint" in name or "lora" in name for name in reranker.state_dict())


def test_the_predictor_has_a_learning_rate_of_its_own(
    reranker: GenerativeRerankerModel, teacher_trainer: Callable[..., RerankerTrainer]
) -> None:
    trainer = teacher_trainer(joint_weight=1.0, learning_rate=1e-30, joint_learning_rate=1e-2, max_steps=2)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    count = sum(weight.requires_grad for weight in trainer.model.parameters())
    trainer.train()
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == count
    moved = {name for name, weight in trainer.model.state_dict().items() if (weight - before[name]).abs().max() > 1e-9}
    assert moved and all("joint_predictor" in name for name in moved)
