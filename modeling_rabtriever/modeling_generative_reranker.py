"""The teacher: a causal language model that reads a document, then a query, and answers <T> or <F>."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils.generic import ModelOutput

from .configuration_generative_reranker import GenerativeRerankerConfig
from .modeling_pooling import in_full_precision, last_token
from .modeling_prefix_cache import DocumentPrefixes
from .modeling_reading import PairReadingModel, listed_pairs
from .processing_rabtriever import RabtrieverProcessor, TokenIds

# Configuration fields by which some families bend or scale the logits after the head. The student's score is an inner
# product only if the logits are a plain linear map of the final state.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


@dataclass
class GenerativeRerankerOutput(ModelOutput):
    """What one forward pass of the teacher gives.

    Args:
        loss: scalar fp32; mean binary cross-entropy of the log-odds, if labels were given.
        logits: `(batch,)` fp32; log-odds `z_T - z_F` of the two answers. Sigmoid gives the probability of `<T>`.
        hidden_state: `(batch, d)`; the backbone's state at the answer position, after the final norm (`h_{Q|D}`).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_state: Tensor | None = None


class GenerativeRerankerModel(PairReadingModel):
    """Scores (query, document) pairs with one pass of a causal language model each.

    The score is the log-odds of the two answers. (Eq. 9 of arXiv 2604.23336, `log P(T) / (log P(T) + log P(F))`, ranks
    backwards as printed and is not used.)

    Made from a plain checkpoint with `GenerativeRerankerModel.from_pretrained(plain, config=config)`, where
    `config.text_config` is the checkpoint's own configuration.

    Raises:
        ValueError: the answer tokens are not set, or the backbone's logits are not a linear map of its final state.

    Examples:
        >>> from modeling_rabtriever import GenerativeRerankerModel, example
        >>> teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))  # or a folder, a Hub id
        >>> documents = ["bring the lantern to the kitchen", "bring the sponge to the kitchen"]
        >>> teacher.rank("In the kitchen: I spilled my drink.", documents, top_k=1)[0]["text"]
        'bring the sponge to the kitchen'
        >>> prefixes = teacher.prefill(documents)  # documents are read once, for any number of queries
        >>> teacher.score(["In the kitchen: I spilled my drink.", "In the kitchen: It is dark."], prefixes).argmax(-1)
        tensor([1, 0])
    """

    config_class = GenerativeRerankerConfig

    def __init__(self, config: GenerativeRerankerConfig) -> None:
        super().__init__(config)
        if config.true_token_id is None:
            raise ValueError("true_token_id and false_token_id are not set; accepted: two ids of the vocabulary")
        self.backbone = AutoModelForCausalLM.from_config(config.text_config)
        _check_linear_head(self.backbone)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embeddings."""
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The backbone's language-model head."""
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the backbone's language-model head."""
        self.backbone.set_output_embeddings(new_embeddings)

    @property
    def answer_rows(self) -> Tensor:
        """Rows `w_T`, `w_F` of the language-model head: `(2, d)` fp32."""
        rows: Tensor = self.backbone.get_output_embeddings().weight
        return torch.stack([rows[self.config.true_token_id], rows[self.config.false_token_id]]).float()

    @property
    def answer_direction(self) -> Tensor:
        """`w_T - w_F`, the direction that scores a state: `(d,)` fp32."""
        true_row, false_row = self.answer_rows
        return true_row - false_row

    def log_odds(self, hidden_state: Tensor) -> Tensor:
        """`(w_T - w_F) . h`: states `(..., d)` of any float dtype -> log-odds `(...)` fp32."""
        with in_full_precision(hidden_state):
            return hidden_state.float() @ self.answer_direction

    def _check_answers(self, processor: RabtrieverProcessor) -> None:
        for name in ("true_token_id", "false_token_id"):
            if getattr(processor, name) != getattr(self.config, name):
                raise ValueError(
                    f"the processor's {name} is {getattr(processor, name)}, the model's is "
                    f"{getattr(self.config, name)}; accepted: the prompt this model was trained with"
                )

    def _longest_prompt(self, processor: RabtrieverProcessor) -> int:
        return processor.max_pair_length

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> GenerativeRerankerOutput:
        """Scores tokenised prompts. Only the two answer logits are computed, not the whole vocabulary's.

        Args:
            input_ids: `(batch, length)` int64, from `RabtrieverProcessor`; the answer position is the last real token.
            attention_mask: `(batch, length)`, 1 for real tokens; `None` if nothing is padded.
            labels: `(batch,)`, 1 for relevant and 0 for not; soft labels in between are allowed.

        Returns:
            The log-odds, the state at the answer position and, with labels, the loss.

        Raises:
            ValueError: a row has no token, or a label lies outside 0 to 1 (NaN included).
        """
        states = self._run(self.backbone.base_model, input_ids, attention_mask).last_hidden_state
        hidden_state = last_token(states, attention_mask)
        logits = self.log_odds(hidden_state)
        loss = None
        if labels is not None:
            targets = labels.float()
            if not ((targets >= 0) & (targets <= 1)).all():
                raise ValueError(f"labels are {labels.tolist()}; accepted: numbers from 0 to 1")
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return GenerativeRerankerOutput(loss=loss, logits=logits, hidden_state=hidden_state)

    def prefill(self, documents: Sequence[str], token_budget: int | None = None) -> DocumentPrefixes:
        """Reads documents once, for `score` against any number of queries.

        Keys and values of a token take `2 x layers x key-value heads x head size` numbers: 12 kB for a 0.5B Qwen2 in
        bf16. `modeling_rabtriever.retrieval.PrefixFiles` keeps them on disk, where a corpus does not fit in memory.

        Args:
            documents: the texts.
            token_budget: padded tokens per forward pass; `None` fits the device.

        Returns:
            The documents' attention state, in the order given, on the model's device.

        Raises:
            ValueError: a text is blank, or the backbone does not attend to all tokens in all layers.
        """
        return self.read_prefixes(self.processor.document_ids(documents), token_budget)

    @torch.no_grad()
    def score(
        self, queries: Sequence[str], documents: Sequence[str] | DocumentPrefixes, token_budget: int | None = None
    ) -> Tensor:
        """Log-odds of every query against every document; each document is read once where the backbone allows it.

        Texts are read block by block, so memory is bounded whatever their number.

        Args:
            queries: `n` texts.
            documents: `m` texts, or what `prefill` made of them.
            token_budget: padded tokens per forward pass; `None` fits the device.

        Returns:
            `(n, m)` fp32, on the model's device.

        Raises:
            ValueError: a blank text, prefixes of another model, or a model without a processor.
        """
        suffixes = self.processor.query_ids(queries)
        read = documents if isinstance(documents, DocumentPrefixes) else self.processor.document_ids(documents)
        pairs = [(query, document) for document in range(len(read)) for query in range(len(suffixes))]
        return self.map_pairs(self.log_odds, read, suffixes, pairs, token_budget).view(len(read), len(suffixes)).T

    @torch.no_grad()
    def score_pairs(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        token_budget: int | None = None,
    ) -> Tensor:
        """Log-odds of some queries against some documents: as `predict`, each document read once for all its queries.

        Args:
            queries: texts.
            documents: texts.
            pairs: rows of both, query first.
            token_budget: padded tokens per forward pass; `None` fits the device.

        Returns:
            `(len(pairs),)` fp32, on the model's device, in the order given.

        Raises:
            ValueError: a blank text, no pair, a row that is none or out of range, or a model without a processor.
        """
        pairs = listed_pairs(pairs, "a row of queries and one of documents")
        if not all(isinstance(row, int) for pair in pairs for row in pair):
            raise ValueError(f"pairs begin with {pairs[:3]}; accepted: rows of queries and of documents, whole numbers")
        prefixes, suffixes = self.processor.document_ids(documents), self.processor.query_ids(queries)
        return self.map_pairs(self.log_odds, prefixes, suffixes, pairs, token_budget)

    def predict(self, pairs: Sequence[tuple[str, str]], token_budget: int | None = None) -> Tensor:
        """Log-odds of (query, document) pairs.

        Args:
            pairs: texts, query first (as in sentence-transformers; the prompt still puts the document first).
            token_budget: padded tokens per forward pass; bounds memory, does not change the scores. `None` fits the
                device.

        Returns:
            `(len(pairs),)` fp32, on the model's device, in the order given.

        Raises:
            ValueError: no pairs, a pair that is not two texts, a blank text, or a model without a processor.
        """
        pairs = listed_pairs(pairs, "(query, document)")
        prefixes = self.processor.document_ids([document for _, document in pairs])
        suffixes = self.processor.query_ids([query for query, _ in pairs])
        return self._score([prefix + suffix for prefix, suffix in zip(prefixes, suffixes, strict=True)], token_budget)

    def _score_documents(self, query: str, documents: Sequence[str], token_budget: int | None) -> Tensor:
        suffix = self.processor.query_ids([query])[0]
        return self._score([prefix + suffix for prefix in self.processor.document_ids(documents)], token_budget)

    @torch.no_grad()
    def _score(self, prompts: list[TokenIds], token_budget: int | None) -> Tensor:
        return self.log_odds(self.encode_prompts(prompts, token_budget))


def _check_linear_head(backbone: Any) -> None:
    head = backbone.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(f"the backbone's head is {head}; accepted: a linear head without bias")
    if head.in_features != backbone.config.get_text_config().hidden_size:
        raise ValueError(
            f"the backbone's head reads {head.in_features} numbers, its hidden size is "
            f"{backbone.config.get_text_config().hidden_size}; accepted: a head that reads the final state"
        )
    for name in _LOGIT_CHANGES:
        value = getattr(backbone.config.get_text_config(), name, None)
        if value not in (None, 1, 1.0):
            raise ValueError(f"the backbone's {name} is {value}; accepted: a family that leaves its logits unchanged")
