"""The student: a text encoder and three matrices, whose score is an inner product of two vectors.

document -> prefix ids -> backbone -> features x_D -> v = A x_D + a                    offline, once
query    -> suffix ids -> backbone -> features x_Q -> u = W relu(V x_Q + b) + c        one pass per query
score = <u, v>
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .configuration_rabtriever import RabtrieverConfig
from .modeling_pooling import in_full_precision, padded_right, pool_states
from .modeling_prompted import PromptedPreTrainedModel
from .processing_rabtriever import RabtrieverProcessor, Texts


@dataclass
class RabtrieverOutput(ModelOutput):
    """What the student makes of queries, documents, or pairs of both; all fp32."""

    scores: Tensor | None = None  # (n,), <u, v> of each pair
    query_embeds: Tensor | None = None  # (n, k), u
    document_embeds: Tensor | None = None  # (n, k), v


class RabtrieverPredictor(nn.Module):
    """What is read of a text -> its vector. Stays in fp32 when the model around it is cast to another type."""

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__()
        self.unit_vectors, features, k = config.unit_vectors, config.feature_size, config.embedding_dim
        self.query_hidden = nn.Linear(features, config.query_hidden_size)  # V
        self.query_output = nn.Linear(config.query_hidden_size, k)  # W
        self.document_map = nn.Linear(features, k) if config.document_map else nn.Identity()  # A

    def encode_query(self, features: Tensor) -> Tensor:
        """`u`: `(..., feature_size)` -> `(..., k)` fp32."""
        with in_full_precision(features):
            return self._scaled(self.query_output(self.query_hidden(features).relu()))

    def encode_document(self, features: Tensor) -> Tensor:
        """`v`: `(..., feature_size)` -> `(..., k)` fp32."""
        with in_full_precision(features):
            return self._scaled(self.document_map(features))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.unit_vectors else vectors

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def cast(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            kept = changed.dtype == torch.float32 or not changed.is_floating_point()
            return changed if kept else tensor.to(changed.device, torch.float32)

        return super()._apply(cast, recurse)


class RabtrieverModel(PromptedPreTrainedModel):
    """Ranks documents by an inner product of vectors: `similarity(encode_query(q), encode_document(d))`.

    Any vector store with a dot metric serves the vectors as they are; only `config.unit_vectors` have length 1.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> student = RabtrieverModel.from_pretrained(example("household"))  # or a folder, or a Hub id
        >>> documents = student.encode_document(["bring the sponge", "bring the lantern"])
        >>> assert student.similarity(student.encode_query("I spilled my drink"), documents).shape == (1, 2)
    """

    config_class = RabtrieverConfig
    # Half-precision projections tie the best candidates. transformers reads one list to load, the other to quantise.
    _keep_in_fp32_modules_strict = ["predictor"]  # noqa: RUF012
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.text_config)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # BERT's head for sentence pairs, which reads nothing we pool
        self.predictor = RabtrieverPredictor(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and any(module is layer for layer in self.predictor.modules()):
            init_linear(module)
        else:
            super()._init_weights(module)

    def _longest_prompt(self, processor: RabtrieverProcessor) -> int:
        return max(processor.max_prefix_length, processor.max_suffix_length)

    def pool(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the predictor reads of texts: prefixes or suffixes `(batch, length)` -> `(batch, feature_size)` fp32."""
        input_ids, mask = padded_right(input_ids, attention_mask)
        # No positions are handed over: those of padding on the right are every backbone's own.
        caching = {"use_cache": False} if hasattr(self.config.text_config, "use_cache") else {}
        states = self.backbone(input_ids=input_ids, attention_mask=mask, **caching).last_hidden_state
        return pool_states(states, mask, self.config.feature_poolings)

    def forward(
        self,
        query_input_ids: Tensor | None = None,
        query_attention_mask: Tensor | None = None,
        document_input_ids: Tensor | None = None,
        document_attention_mask: Tensor | None = None,
    ) -> RabtrieverOutput:
        """Vectors of queries or documents, ids and masks `(n, length)`, or of both, and the score of each pair.

        Raises:
            ValueError: no side is given, or the two have another number of texts.
        """
        if query_input_ids is None and document_input_ids is None:
            raise ValueError("query_input_ids and document_input_ids are None; accepted: one of them or both")
        output = RabtrieverOutput()
        if query_input_ids is not None:
            output.query_embeds = self.predictor.encode_query(self.pool(query_input_ids, query_attention_mask))
        if document_input_ids is not None:
            features = self.pool(document_input_ids, document_attention_mask)
            output.document_embeds = self.predictor.encode_document(features)
        if output.query_embeds is not None and output.document_embeds is not None:
            queries, documents = len(output.query_embeds), len(output.document_embeds)
            if queries != documents:
                raise ValueError(f"{queries} queries and {documents} documents; accepted: as many of each")
            output.scores = (output.query_embeds * output.document_embeds).sum(-1)
        return output

    @torch.no_grad()
    def encode_query(self, texts: Texts, token_budget: int | None = None) -> Tensor:
        """Query vectors `u`: `(n, k)` fp32 on the model's device; `token_budget` padded tokens per forward pass.

        Raises:
            ValueError: no texts, a blank text, something that is no text, or a model without a processor.
        """
        ids = self.processor.query_ids(texts)
        return self.predictor.encode_query(self._map_prompts(self.pool, ids, token_budget))

    @torch.no_grad()
    def encode_document(self, texts: Texts, token_budget: int | None = None, progress: bool = True) -> Tensor:
        """Document vectors `v`: `(m, k)` fp32 on the model's device; `progress` shows a bar for long lists.

        Raises:
            ValueError: no texts, a blank text, something that is no text, or a model without a processor.
        """
        ids = self.processor.document_ids(texts)
        return self.predictor.encode_document(self._map_prompts(self.pool, ids, token_budget, progress))

    def similarity(self, query_embeds: Tensor, document_embeds: Tensor) -> Tensor:
        """Inner products: `(n, k)` and `(m, k)` -> `(n, m)` fp32. Comparable within a query, not between queries.

        Raises:
            ValueError: the two are not matrices of the same width.
        """
        for name, embeds in (("query_embeds", query_embeds), ("document_embeds", document_embeds)):
            if not isinstance(embeds, Tensor):
                raise ValueError(f"{name} is of type {type(embeds).__name__}; accepted: a tensor (torch.as_tensor)")
        sizes = tuple(query_embeds.shape), tuple(document_embeds.shape)
        if [len(size) for size in sizes] != [2, 2] or sizes[0][1] != sizes[1][1]:
            raise ValueError(f"query_embeds, document_embeds are {sizes[0]}, {sizes[1]}; accepted: (n, k) and (m, k)")
        with in_full_precision(query_embeds):
            return query_embeds.float() @ document_embeds.float().T

    def _score_documents(self, query: str, documents: Sequence[str], token_budget: int | None) -> Tensor:
        vectors = self.encode_document(documents, token_budget)
        return self.similarity(self.encode_query([query], token_budget), vectors)[0]


def init_linear(layer: Any) -> None:
    """Fresh weights of unit gain whatever the width: k and d differ by orders of magnitude between models."""
    init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)
    if layer.bias is not None:
        init.zeros_(layer.bias)
