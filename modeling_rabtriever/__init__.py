"""Rabtriever: rationale-based retrieval. The teacher (generative reranker), the student (Rabtriever), their processor.

Importing this package registers the classes with transformers, so `AutoModel.from_pretrained(folder)` finds them
without `trust_remote_code`. A process that does not have the package loads the same folders with
`trust_remote_code=True`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from .configuration_generative_reranker import GenerativeRerankerConfig
from .configuration_rabtriever import RabtrieverConfig
from .examples import example
from .modeling_generative_reranker import GenerativeRerankerModel, GenerativeRerankerOutput
from .modeling_rabtriever import RabtrieverModel, RabtrieverOutput
from .processing_rabtriever import RabtrieverProcessor

__version__ = "0.1.0"

__all__ = [
    "GenerativeRerankerConfig",
    "GenerativeRerankerModel",
    "GenerativeRerankerOutput",
    "RabtrieverConfig",
    "RabtrieverModel",
    "RabtrieverOutput",
    "RabtrieverProcessor",
    "example",
]

for _config, _model in (
    (GenerativeRerankerConfig, GenerativeRerankerModel),
    (RabtrieverConfig, RabtrieverModel),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, RabtrieverProcessor, exist_ok=True)
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModel")
RabtrieverProcessor.register_for_auto_class()
