"""The student: a text encoder and a small predictor whose score is an inner product of two vectors.

document -> prefix ids -> backbone -> features x_D -> v = A x_D                              offline, once
query    -> suffix ids -> backbone -> features x_Q -> u = (B^T (w_T - w_F)) * f(x_Q)         one pass per query
score = <u, v> = (w_T - w_F) . h_hat - (w_T - w_F) . shift(x_Q)                              the last term ranks nothing

With `query_anchors` a query takes one pass per anchor, behind that document prefix, and x_Q joins the states of all.
With `document_anchors` a document takes one more pass per anchor, before that query suffix; its log-odds join x_D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .configuration_rabtriever import RabtrieverConfig
from .modeling_generative_reranker import GenerativeRerankerModel
from .modeling_pooling import before, behind, in_full_precision, last_token, padded_right, pool_states
from .modeling_predictor import FullPrecisionLinear, RabtrieverPredictor, init_predictor_layer
from .modeling_prompted import PromptedPreTrainedModel
from .processing_rabtriever import RabtrieverProcessor, Texts


@dataclass
class RabtrieverOutput(ModelOutput):
    """What the student predicts for pairs, or for lists of `c` candidates per query (shapes in brackets).

    Args:
        logits: `(n,)` [`(n, c)`] fp32; predicted log-odds `(w_T - w_F) . h_hat`.
        scores: `(n,)` [`(n, c)`] fp32; `<u, v>`, which equals `logits` up to a number per query.
        hidden_state: `(n, d)` [`(n, c, d)`] fp32; `h_hat`, the predicted context-aware state `h_{Q|D}`.
        query_embeds: `(n, k)` fp32; `u`.
        document_embeds: `(n, k)` [`(n, c, k)`] fp32; `v`. With `document_places`: `(m, k)`, of each document once.
    """

    logits: Tensor | None = None
    scores: Tensor | None = None
    hidden_state: Tensor | None = None
    query_embeds: Tensor | None = None
    document_embeds: Tensor | None = None


class RabtrieverModel(PromptedPreTrainedModel):
    """Ranks documents by an inner product of vectors: `similarity(encode_query(q), encode_document(d))`.

    The encoder is the teacher's backbone or any other text model. The answer rows are the teacher's. Both are frozen
    until a trainer unfreezes the encoder; the predictor always trains. Vectors are not normalised: any vector store
    with a dot metric serves them as they are.
    """

    config_class = RabtrieverConfig
    # Half-precision projections tie the best candidates; the backbone may still run in bf16. transformers reads lists:
    # the strict one when it loads, the other one when it quantises.
    _keep_in_fp32_modules_strict = ["predictor", "answer_head"]  # noqa: RUF012
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.text_config)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # BERT's head for sentence pairs, which reads nothing we pool
        self.predictor = RabtrieverPredictor(config)
        self.answer_head = FullPrecisionLinear(config.answer_size, 2, bias=False)  # rows w_T, w_F of the teacher's head
        self.post_init()
        self._freeze()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.answer_head:
            init.constant_(module.weight, float("nan"))  # a model without its teacher's rows must not rank
        elif any(module is layer for layer in self.predictor.modules()):
            init_predictor_layer(module)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the processor, and with backbone and answer rows frozen."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze()  # loading replaces the parameters
        return loaded

    def _freeze(self) -> None:
        self.backbone.requires_grad_(False)
        self.answer_head.requires_grad_(False)
        self.predictor.freeze_whitening()

    def train(self, mode: bool = True) -> "RabtrieverModel":
        """Sets training mode; a frozen encoder stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.backbone.train(mode and any(weight.requires_grad for weight in self.backbone.parameters()))
        return self

    def _longest_prompt(self, processor: RabtrieverProcessor) -> int:
        query = _longest(self.config.query_anchors) + processor.max_suffix_length
        document = processor.max_prefix_length + _longest(self.config.document_anchors)
        return max(query, document)

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embeddings."""
        return self.backbone.get_input_embeddings()

    @property
    def answer_rows(self) -> Tensor:
        """Rows `w_T`, `w_F` of the teacher's language-model head: `(2, d)` fp32."""
        return self.answer_head.weight

    @classmethod
    def from_teacher(cls, teacher: GenerativeRerankerModel, **predictor: Any) -> "RabtrieverModel":
        """A student with the teacher's backbone, answer rows and processor, and a fresh predictor.

        Args:
            teacher: the trained reranker; its weights are copied.
            predictor: settings of `RabtrieverConfig` (`predictor_type`, `embedding_dim`, `num_heads`, ...).

        Raises:
            ValueError: a predictor setting is out of range.
        """
        answers = {"true_token_id": teacher.config.true_token_id, "false_token_id": teacher.config.false_token_id}
        student = cls(RabtrieverConfig(text_config=teacher.config.text_config.to_dict(), **answers, **predictor))
        student.backbone.to(teacher.dtype).load_state_dict(teacher.backbone.base_model.state_dict())
        student.answer_head.weight.data.copy_(teacher.answer_rows)
        if teacher._processor is not None:
            student.processor = teacher.processor
        student.to(teacher.device)  # type: ignore[arg-type]  # transformers wraps the signature away
        return student.eval()

    def pool_document(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States of the chosen layers, pooled and joined, and whatever else the predictor reads.

        Args:
            input_ids: `(batch, length)` int64: document prefixes from the processor.
            attention_mask: `(batch, length)`, 1 for real tokens.

        Returns:
            `(batch, document_feature_size)` fp32: states of the document's own tokens, then the teacher's log-odds for
            each of `config.document_anchors`, read behind it, then the mean input embedding for `config.shared_dim`.
        """
        input_ids, mask = padded_right(input_ids, attention_mask)
        poolings = self.config.feature_poolings
        pooled = self._pooled_states(input_ids, mask, mask, poolings)
        for anchor in self.config.document_anchors:
            prompts, read, _ = before(anchor, input_ids, mask)
            answers = last_token(self._encode(prompts, read).last_hidden_state, read)
            pooled.append(self.log_odds(answers)[:, None])
        return torch.cat([*pooled, *self._pooled_words(input_ids, mask)], dim=-1)

    def pool_query(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """As `pool_document`, of queries: read behind each of `config.query_anchors` in turn, or else alone.

        Args:
            input_ids: `(batch, length)` int64: query suffixes from the processor.
            attention_mask: `(batch, length)`, 1 for real tokens.

        Returns:
            `(batch, query_feature_size)` fp32; states of the query's own tokens, anchor by anchor.
        """
        input_ids, mask = padded_right(input_ids, attention_mask)
        anchors = self.config.query_anchors
        read = [behind(anchor, input_ids, mask) for anchor in anchors] if anchors else [(input_ids, mask, mask)]
        pooled = [part for prompts in read for part in self._pooled_states(*prompts, self.config.feature_poolings)]
        return torch.cat([*pooled, *self._pooled_words(input_ids, mask)], dim=-1)

    def _pooled_states(
        self, input_ids: Tensor, attention_mask: Tensor, counted: Tensor, poolings: Sequence[str]
    ) -> list[Tensor]:
        layers, last_layer = self.config.feature_layers, self.config.text_config.num_hidden_layers
        inner = any(layer not in (-1, last_layer) for layer in layers)
        output = self._encode(input_ids, attention_mask, output_hidden_states=inner)
        read = [
            output.last_hidden_state if layer in (-1, last_layer) else output.hidden_states[layer] for layer in layers
        ]
        return [pool_states(states, counted, poolings) for states in read]

    def _encode(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
        # No positions are handed over: those of padding on the right are every backbone's own.
        caching = {"use_cache": False} if hasattr(self.config.text_config, "use_cache") else {}
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask, **caching, **kwargs)

    def _pooled_words(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        if not self.config.shared_dim:
            return []
        return [pool_states(self.get_input_embeddings()(input_ids), attention_mask, ["mean"])]

    def forward(
        self,
        query_input_ids: Tensor | None = None,
        query_attention_mask: Tensor | None = None,
        document_input_ids: Tensor | None = None,
        document_attention_mask: Tensor | None = None,
        query_features: Tensor | None = None,
        document_features: Tensor | None = None,
        document_places: Tensor | None = None,
    ) -> RabtrieverOutput:
        """Predicts the teacher's state and log-odds. Each side comes as token ids or as features computed before.

        Args:
            query_input_ids: `(n, length)` int64 suffixes, with `query_attention_mask` `(n, length)`.
            document_input_ids: `(n, length)` int64 prefixes, with `document_attention_mask` `(n, length)`.
            query_features: `(n, query_feature_size)` as from `query_features()`, instead of the query's ids.
            document_features: `(n, document_feature_size)` as from `document_features()`, or `(n, c,
                document_feature_size)` for `c` candidates per query.
            document_places: `(n, c)` int64; which of `m` documents are each query's candidates, if a document is given
                once and is a candidate of several.

        Raises:
            ValueError: a side is given twice or not at all, or the two sides do not fit together.
        """
        for side, ids, features in (
            ("query", query_input_ids, query_features),
            ("document", document_input_ids, document_features),
        ):
            if (ids is None) == (features is None):
                raise ValueError(f"{side}_input_ids and {side}_features: accepted is exactly one of them")
        query, document = query_features, document_features
        if query_input_ids is not None:
            query = self.predictor.whiten_query(self.pool_query(query_input_ids, query_attention_mask))
        if document_input_ids is not None:
            document = self.predictor.whiten_document(self.pool_document(document_input_ids, document_attention_mask))
        assert query is not None and document is not None
        distinct = document
        if document_places is not None:
            document = distinct[document_places]
        sizes = self.config.query_feature_size, self.config.document_feature_size
        fit = query.dim() == 2 and document.dim() in (2, 3) and len(query) == len(document)
        if not fit or (query.shape[-1], document.shape[-1]) != sizes:
            raise ValueError(
                f"query features {tuple(query.shape)} and document features {tuple(document.shape)} do not fit; "
                f"accepted: (n, {sizes[0]}) with (n, {sizes[1]}) or (n, c, {sizes[1]})"
            )
        hidden_state = self.predictor(query, document, self.answer_direction)
        asked = self.predictor.encode_query(query, self.answer_direction)
        vectors = self.predictor.encode_document(distinct)
        own = vectors if document_places is None else vectors[document_places]
        with in_full_precision(asked):
            scores = torch.einsum("n...k,nk->n...", own, asked)
        return RabtrieverOutput(
            logits=self.log_odds(hidden_state),
            scores=scores,
            hidden_state=hidden_state,
            query_embeds=asked,
            document_embeds=vectors,
        )

    def query_features(self, texts: Texts, token_budget: int | None = None) -> Tensor:
        """What the predictor reads of queries, prompt included: `(n, query_feature_size)` fp32, the model's device."""
        suffixes, added = self.processor.query_ids(texts), _longest(self.config.query_anchors)
        return self.predictor.whiten_query(
            self._map_prompts(self.pool_query, suffixes, token_budget, extra_tokens=added)
        )

    def document_features(self, texts: Texts, token_budget: int | None = None, progress: bool = True) -> Tensor:
        """What the predictor reads of documents, prompt included: `(m, document_feature_size)` fp32, same device."""
        prefixes, added = self.processor.document_ids(texts), _longest(self.config.document_anchors)
        return self.predictor.whiten_document(
            self._map_prompts(self.pool_document, prefixes, token_budget, progress, extra_tokens=added)
        )

    @torch.no_grad()
    def encode_query(self, texts: Texts, token_budget: int | None = None) -> Tensor:
        """Query vectors `u`: `(n, k)` fp32 on the model's device; one backbone pass per query, or one per anchor.

        Raises:
            ValueError: no texts, a blank text, something that is no text, or a model without a processor.
        """
        return self.predictor.encode_query(self.query_features(texts, token_budget), self.answer_direction)

    @torch.no_grad()
    def encode_document(self, texts: Texts, token_budget: int | None = None, progress: bool = True) -> Tensor:
        """Document vectors `v`: `(m, k)` fp32 on the model's device; computed once, kept in any vector store.

        Args:
            texts: the documents.
            token_budget: padded tokens per forward pass; `None` fits the device.
            progress: whether long lists show a progress bar.

        Raises:
            ValueError: no texts, a blank text, something that is no text, or a model without a processor.
        """
        return self.predictor.encode_document(self.document_features(texts, token_budget, progress))

    def similarity(self, query_embeds: Tensor, document_embeds: Tensor) -> Tensor:
        """Inner products: `(n, k)` and `(m, k)` -> `(n, m)` fp32. Comparable within a query, not between queries.

        Raises:
            ValueError: the two are not matrices of the same width.
        """
        if query_embeds.dim() != 2 or document_embeds.dim() != 2 or query_embeds.shape[1] != document_embeds.shape[1]:
            raise ValueError(
                f"query_embeds {tuple(query_embeds.shape)} and document_embeds {tuple(document_embeds.shape)} do not "
                "fit; accepted: (n, k) and (m, k)"
            )
        with in_full_precision(query_embeds):
            return query_embeds.float() @ document_embeds.float().T

    def _score_documents(self, query: str, documents: Sequence[str], token_budget: int | None) -> Tensor:
        vectors = self.encode_document(documents, token_budget)
        return self.similarity(self.encode_query([query], token_budget), vectors)[0]


def _longest(anchors: Sequence[Sequence[int]]) -> int:
    return max(map(len, anchors), default=0)
