"""Students of any shape a configuration can say, with random matrices, on a reranker's backbone."""

from typing import Any

import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel


def student_with(reranker: GenerativeRerankerModel, **settings: Any) -> RabtrieverModel:
    """`settings` are of `RabtrieverConfig`; biases are random too, so that no formula passes without them."""
    torch.manual_seed(1)
    student = RabtrieverModel(RabtrieverConfig(text_config=reranker.config.text_config.to_dict(), **settings)).eval()
    student.backbone.load_state_dict(reranker.backbone.base_model.state_dict())
    for name, weight in student.predictor.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_(std=0.3)
    student.processor = reranker.processor
    return student.requires_grad_(False)
