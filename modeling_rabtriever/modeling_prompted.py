"""What teacher and student share: a backbone, the processor (the prompt) that belongs to it, and batching by length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import ModelCard, cached_file  # type: ignore[attr-defined]  # which it only imports

from .configuration_rabtriever import PromptedConfig
from .modeling_checks import check_loaded, check_source
from .processing_rabtriever import MissingProcessorError, RabtrieverProcessor, TokenIds, at_least_one, checked_texts

# Padded tokens per forward pass: on CPUs activations should stay in the cache, GPUs want to be filled (LOG.md).
TOKEN_BUDGETS = {"cpu": 2048}
OTHER_TOKEN_BUDGET = 16_384
PROGRESS_FROM = 2048  # texts of a call that shows a progress bar

_PLACES = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")  # of files on the Hub


class RankedDocument(TypedDict):
    """One entry of a ranking: position in the given list, score, and the text itself."""

    corpus_id: int
    score: float
    text: str


class PromptedPreTrainedModel(PreTrainedModel):
    """A model saved and loaded with its processor, so that no text is ever scored without its prompt."""

    config_class = PromptedConfig
    base_model_prefix = "backbone"  # lets from_pretrained read the checkpoint of a plain causal language model
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    _processor: RabtrieverProcessor | None = None
    _source: Any = None  # folder or Hub id of ours it was loaded from, whose card push_to_hub keeps

    @property
    def processor(self) -> RabtrieverProcessor:
        """The prompt this model was trained with.

        Raises:
            ValueError: none was saved with the model; or, when assigned, it does not fit the answers or the window.
        """
        if self._processor is None:
            raise ValueError(f"this {type(self).__name__} has no processor; accepted: one saved with or assigned to it")
        return self._processor

    @processor.setter
    def processor(self, processor: RabtrieverProcessor) -> None:
        self._check_answers(processor)
        window = self.config.window
        longest = self._longest_prompt(processor)
        if window is not None and longest > window:
            raise ValueError(
                f"max_document_length {processor.max_document_length} + max_query_length {processor.max_query_length} "
                f"+ template make {longest} tokens; accepted: at most the backbone's window, {window}"
            )
        self._processor = processor

    def _check_answers(self, processor: RabtrieverProcessor) -> None:
        """Raises a ValueError if a model that answers has other answers than the prompt."""

    if TYPE_CHECKING:  # each subclass says how long its prompts are and how it scores

        def _longest_prompt(self, processor: RabtrieverProcessor) -> int:
            """Tokens of the longest text it reads at once, template included."""

        def _score_documents(self, query: str, documents: Sequence[str], token_budget: int | None) -> Tensor:
            """Scores of one query's candidates, `(len(documents),)`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the processor if there is one, and from safetensors only.

        Raises:
            ValueError: `use_safetensors=False` was passed, processor and model do not belong together, or the weights
                are not all of this model's own (`check_source`, `check_loaded`).
            OSError: there are no safetensors weights.
        """
        path = pretrained_model_name_or_path
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(f"use_safetensors is {kwargs['use_safetensors']!r}; accepted: True (no pickle is loaded)")
        if kwargs.get("variant") is not None:
            raise ValueError(f"variant is {kwargs['variant']!r}; accepted: none, a model has one set of weights")
        files = {name: kwargs[name] for name in _PLACES if kwargs.get(name) is not None}
        stored = check_source(path, files)
        wanted = kwargs.pop("output_loading_info", False)
        options = {**kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}  # told by check_loaded
        loaded: Any = super().from_pretrained(path, *model_args, **options)
        model, info = loaded
        model._apply(lambda tensor: tensor)  # a predictor stays in fp32; transformers makes it fp64 with the backbone
        processor = None
        with suppress(MissingProcessorError):  # a plain causal language model: the caller brings the prompt
            # The configuration is handed over because looking it up again would ask for trust_remote_code again.
            trust = bool(kwargs.get("trust_remote_code"))  # never asked for on the terminal
            processor = RabtrieverProcessor.from_pretrained(path, config=model.config, trust_remote_code=trust, **files)
        check_loaded(path, model, info, stored, complete=processor is not None)
        if processor is not None:
            model.processor = processor
            model._source = path
        return loaded if wanted else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`, with the processor and the code of both; none has a `variant`."""
        if (variant := kwargs.get("variant", *args[4:5])) is not None:
            raise ValueError(f"variant is {variant!r}; accepted: none, a model has one set of weights")
        super().save_pretrained(save_directory, *args, **kwargs)
        if self._processor is not None:
            self._processor.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]  # transformers wraps it
        """As transformers'; the card of this model's source follows as a second commit (none with `create_pr`)."""
        pushed: str = super().push_to_hub(repo_id, **kwargs)  # type: ignore[arg-type]
        token, revision = kwargs.get("token"), kwargs.get("revision")
        card = None if self._source is None or kwargs.get("create_pr") else self._card(token)
        if card is not None:
            data: Any = card.data
            known = [] if revision else ModelCard.load(repo_id, token=token).data.to_dict().get("tags") or []
            data.tags = list(dict.fromkeys([*(data.tags or []), *known, *(kwargs.get("tags") or [])])) or None
            card.push_to_hub(repo_id, token=token, revision=revision, commit_message="Model card")
        return pushed

    def _card(self, token: Any) -> ModelCard | None:
        commit = getattr(self.config, "_commit_hash", None)  # set by loading from the Hub alone
        with suppress(OSError):  # there is no card, the folder is gone, or the source cannot be reached
            return ModelCard.load(str(cached_file(self._source, "README.md", revision=commit, token=token)))
        return None

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, token_budget: int | None = None
    ) -> list[RankedDocument]:
        """Candidates by falling score for one query: log-odds (teacher) or inner product (student).

        A fixed corpus is better read once: `prefill` and `score` (teacher), `encode_document` and `similarity`.

        Args:
            query: one text.
            documents: the candidates; equal texts are read once and get equal scores.
            top_k: how many to return; `None` returns all.
            token_budget: padded tokens per forward pass; `None` fits the device.

        Returns:
            `{"corpus_id", "score", "text"}` per document, best first; equal scores keep the order of the list.

        Raises:
            ValueError: blank or missing text, `top_k` out of range, a NaN score, or a model without a processor.
        """
        documents = checked_texts("documents", documents)
        # Rows of a batch differ in the last bits of their scores: copies of a text would be ordered by chance.
        places = {text: place for place, text in enumerate(dict.fromkeys(documents))}
        scores = self._score_documents(query, list(places), token_budget)
        return ranking(scores[[places[text] for text in documents]], documents, top_k)

    def _map_prompts(
        self,
        compute: Callable[..., Tensor],
        sequences: Sequence[TokenIds],
        token_budget: int | None,
        progress: bool = True,
    ) -> Tensor:
        """Applies `compute(input_ids, attention_mask) -> (batch, ...)` to every sequence, in the order given."""

        def of_rows(rows: list[int]) -> Tensor:
            batch = self.processor.pad([sequences[row] for row in rows]).to(self.device)
            return compute(batch["input_ids"], batch["attention_mask"])

        return self._map_rows(of_rows, [len(ids) for ids in sequences], token_budget, progress)

    @torch.no_grad()
    def _map_rows(
        self, compute: Callable[[list[int]], Tensor], lengths: Sequence[int], token_budget: int | None, progress: bool
    ) -> Tensor:
        """Applies `compute(rows) -> (len(rows), ...)` to batches of rows of like length; results in row order."""
        if token_budget is None:
            token_budget = TOKEN_BUDGETS.get(self.device.type, OTHER_TOKEN_BUDGET)
        training = [module for module in self.modules() if module.training]
        if training:  # walking through all modules takes as long as a layer, so not for every query
            self.eval()
        parts: list[Tensor] = []
        order: list[int] = []
        silent = not progress or len(lengths) < PROGRESS_FROM or None  # None: a bar on a terminal only
        bar = logging.tqdm(total=len(lengths), disable=silent, desc="reading", unit="text")
        try:
            for rows in batches_by_length(lengths, token_budget):
                parts.append(compute(rows))
                order.extend(rows)
                bar.update(len(rows))
        finally:
            bar.close()
            for module in training:
                module.training = True
        computed = torch.cat(parts)
        return computed.new_empty(computed.shape).index_copy_(0, torch.tensor(order, device=computed.device), computed)


def batches_by_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in groups whose padded size stays within `token_budget` (one row at least)."""
    at_least_one("token_budget", token_budget)
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if group and (len(group) + 1) * lengths[group[0]] > token_budget:
            yield group
            group = []
        group.append(row)
    yield group


def ranking(scores: Tensor, documents: Sequence[str], top_k: int | None) -> list[RankedDocument]:
    """The best `top_k` documents by score, as `rank` gives them; a ValueError if `top_k` or a score is none."""
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k is {top_k!r}; accepted: None or a whole number of at least 1")
    if scores.isnan().any():
        raise ValueError("a score is NaN, so the model's weights are broken; accepted: finite scores")
    order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
    return [{"corpus_id": row, "score": float(scores[row]), "text": documents[row]} for row in order]
