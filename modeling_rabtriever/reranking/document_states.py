"""Teachers whose document states are worth distilling: terms of the training loss that give these states a use.

In ordinary training of a reranker the state of a document's last token is read by nothing but attention, and what it
holds of the document is chance. The student has nothing else to go by.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import GenerativeRerankerModel, RabtrieverConfig
from ..modeling_pooling import in_full_precision, pool_states
from ..modeling_rabtriever import RabtrieverPredictor, init_linear

_NAME = "joint_predictor"
_POOLINGS = ("last", "mean")  # as of a student on the teacher's backbone


def attach_joint_predictor(reranker: GenerativeRerankerModel, peft_config: Any = None) -> None:
    """Gives the backbone a fresh predictor as a submodule, so that it is trained, saved and resumed with it.

    Args:
        reranker: the teacher.
        peft_config: of LoRA, if it is used: the predictor is then trained in full.
    """
    settings = RabtrieverConfig(text_config=reranker.config.text_config.to_dict(), feature_poolings=_POOLINGS)
    predictor = RabtrieverPredictor(settings)
    for layer in predictor.children():
        init_linear(layer)
    predictor.to(reranker.device)
    setattr(reranker.backbone, _NAME, predictor)
    if peft_config is not None:
        peft_config.modules_to_save = [*(peft_config.modules_to_save or []), _NAME]


def detach_joint_predictor(reranker: GenerativeRerankerModel) -> None:
    """Drops the predictor, if there is one."""
    if hasattr(reranker.backbone, _NAME):
        delattr(reranker.backbone, _NAME)


def joint_parameters(reranker: GenerativeRerankerModel) -> set[int]:
    """The `id` of each weight of the predictor."""
    return {id(weight) for weight in getattr(reranker.backbone, _NAME).parameters()}


def joint_scores(
    reranker: GenerativeRerankerModel, states: Tensor, in_document: Tensor, queries_mask: Tensor
) -> Tensor:
    """What a student on this backbone would score: inner products of queries and documents that were read apart.

    Args:
        reranker: the teacher, with its predictor.
        states: `(pairs + groups, length, d)`, final states: pairs first, each document before its query, padded on the
            right; then one query alone per group.
        in_document: `(pairs, length)` bool, the tokens of the documents. Under causal attention their states do not
            know of the query behind them.
        queries_mask: `(groups, length)`, 1 for the tokens of the queries alone.

    Returns:
        `(groups, pairs / groups)` fp32.
    """
    pairs, groups = len(in_document), len(queries_mask)
    predictor = getattr(reranker.backbone, _NAME)
    with in_full_precision(states):
        documents = predictor.encode_document(pool_states(states[:pairs], in_document.long(), _POOLINGS))
        queries = predictor.encode_query(pool_states(states[pairs:], queries_mask, _POOLINGS))
        return torch.einsum("gk,gck->gc", queries, documents.view(groups, pairs // groups, -1))


def document_lm_loss(
    reranker: GenerativeRerankerModel, states: Tensor, input_ids: Tensor, in_document: Tensor
) -> Tensor:
    """Mean cross-entropy of every document token but the first, given those before it.

    Args:
        reranker: the teacher.
        states: `(pairs, length, d)`, final states.
        input_ids: `(pairs, length)`.
        in_document: `(pairs, length)` bool, the tokens of the documents with their template.

    Returns:
        A scalar, fp32, in nats.
    """
    known = in_document[:, 1:]  # a token is predicted from the state before it
    logits = reranker.get_output_embeddings()(states[:, :-1][known])
    return F.cross_entropy(logits.float(), input_ids[:, 1:][known])
