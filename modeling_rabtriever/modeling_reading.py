"""How the teacher reads pairs: each document once where its backbone allows it, whole prompts where it does not."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from .modeling_prefix_cache import DocumentPrefixes, in_blocks, model_fingerprint, take_prefixes
from .modeling_prompted import PromptedPreTrainedModel
from .processing_rabtriever import TokenIds


class PairReadingModel(PromptedPreTrainedModel):
    """States of prompts, of which the first part, the document, may have been read before."""

    backbone: Any

    @property
    def reuses_prefixes(self) -> bool:
        """Whether a document can be read once for many queries: only if every layer attends to the whole prompt."""
        window = self.config.attention_window
        return window is None or self.processor.max_pair_length <= window

    def _run(
        self,
        backbone: Callable[..., Any],
        input_ids: Tensor,
        attention_mask: Tensor | None,
        prefix: tuple[Cache, Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass; `prefix` is a cache of what was read before and its mask, `(batch, prefix length)`."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if prefix is not None:
            cache, prefix_mask = prefix
            attention_mask = torch.cat([prefix_mask, attention_mask], dim=-1)
            kwargs |= {_cache_name(backbone): cache, "use_cache": True}
        # Positions come from the mask: transformers' default counts padding too, without an error (a wrong score).
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        return backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            **{"use_cache": False, **kwargs},
        )

    def encode_prompts(
        self, prompts: Sequence[TokenIds], token_budget: int | None = None, progress: bool = True
    ) -> Tensor:
        """States `h_{Q|D}` of full prompts.

        Args:
            prompts: prefix ids + suffix ids, both from the processor.
            token_budget: padded tokens per forward pass; `None` fits the device.
            progress: whether a long call shows a bar.

        Returns:
            `(len(prompts), d)` in the backbone's dtype, on the model's device, in the order given.
        """
        return self._map_prompts(self._last_state, prompts, token_budget, progress)

    def read_prefixes(
        self, sequences: Sequence[TokenIds], token_budget: int | None = None, progress: bool = True
    ) -> DocumentPrefixes:
        """As `GenerativeRerankerModel.prefill`, from prefix ids of the processor."""
        if not self.reuses_prefixes:
            raise ValueError(
                f"a layer of this backbone attends to {self.config.attention_window} tokens, fewer than the longest "
                f"prompt, {self.processor.max_pair_length}; accepted for prefill: full attention in all layers. Score "
                "texts instead"
            )
        fingerprint = model_fingerprint(self)
        parts: list[DocumentPrefixes] = []
        read = 0

        def fill(rows: list[int]) -> Tensor:
            nonlocal read
            batch = self.processor.pad([sequences[row] for row in rows]).to(self.device)
            out = self._run(self.backbone.base_model, **batch, use_cache=True)
            cache = getattr(out, _cache_name(self.backbone.base_model), None)  # families with their own state have none
            parts.append(take_prefixes(cache, **batch, model=fingerprint))
            read += len(rows)
            return torch.arange(read - len(rows), read)

        places = self._map_rows(fill, [len(ids) for ids in sequences], token_budget, progress)
        return DocumentPrefixes.concatenate(parts).select(places)

    @torch.no_grad()
    def map_pairs(
        self,
        reduce: Callable[[Tensor], Tensor],
        prefixes: Sequence[TokenIds] | DocumentPrefixes,
        suffixes: Sequence[TokenIds],
        pairs: Sequence[tuple[int, int]],
        token_budget: int | None = None,
        progress: bool = True,
    ) -> Tensor:
        """Something of the states `h_{Q|D}` of pairs, such as their log-odds.

        Documents are read block by block, so memory is bounded by what is kept of the pairs.

        Args:
            reduce: states of a batch, `(b, d)` in the backbone's dtype -> what is kept of them, `(b, ...)`.
            prefixes: prefix ids of documents, or what `read_prefixes` of this very model made of them.
            suffixes: suffix ids of queries.
            pairs: rows of suffixes and of prefixes, query first.
            token_budget: padded tokens, those of the prefixes included, per forward pass; `None` fits the device.
            progress: whether a long call shows a bar.

        Returns:
            `(len(pairs), ...)`, on the model's device, in the order given: the same, but for rounding, as of
            `encode_prompts` of the joined prompts.

        Raises:
            ValueError: the prefixes are another model's, there are no pairs, or a row is out of range.
        """
        if not pairs or not all(0 <= q < len(suffixes) and 0 <= d < len(prefixes) for q, d in pairs):
            raise ValueError(
                f"{len(pairs)} pairs; accepted: one or more, each a row of {len(suffixes)} queries and one of "
                f"{len(prefixes)} documents"
            )
        if isinstance(prefixes, DocumentPrefixes):
            if prefixes.model != model_fingerprint(self):
                raise ValueError(
                    "these prefixes were made by another model; accepted: those of this model's own prefill()"
                )
            return self._map_behind(reduce, prefixes, suffixes, pairs, token_budget, progress)
        if not self.reuses_prefixes:
            return self._map_whole(reduce, prefixes, suffixes, pairs, token_budget, progress)
        order = sorted(range(len(pairs)), key=lambda place: pairs[place][1])
        parts: list[Tensor] = []
        for own, documents in _blocks([pairs[place] for place in order], prefixes):
            held = self.read_prefixes([prefixes[document] for document in documents], token_budget, progress=False)
            parts.append(self._map_behind(reduce, held, suffixes, own, token_budget, progress))
        found = torch.cat(parts)
        return torch.empty_like(found).index_copy_(0, torch.tensor(order, device=found.device), found)

    def _map_behind(
        self,
        reduce: Callable[[Tensor], Tensor],
        prefixes: DocumentPrefixes,
        suffixes: Sequence[TokenIds],
        pairs: Sequence[tuple[int, int]],
        token_budget: int | None,
        progress: bool,
    ) -> Tensor:
        documents = torch.tensor([document for _, document in pairs])

        def read(rows: list[int]) -> Tensor:
            batch = self.processor.pad([suffixes[pairs[row][0]] for row in rows]).to(self.device)
            return reduce(self._last_state(**batch, prefix=prefixes.batch(documents[rows], self.device)))

        lengths = [prefixes.longest + len(suffixes[query]) for query, _ in pairs]
        return self._map_rows(read, lengths, token_budget, progress)

    def _map_whole(
        self,
        reduce: Callable[[Tensor], Tensor],
        prefixes: Sequence[TokenIds],
        suffixes: Sequence[TokenIds],
        pairs: Sequence[tuple[int, int]],
        token_budget: int | None,
        progress: bool,
    ) -> Tensor:
        def read(rows: list[int]) -> Tensor:
            prompts = [prefixes[document] + suffixes[query] for query, document in (pairs[row] for row in rows)]
            return reduce(self._last_state(**self.processor.pad(prompts).to(self.device)))

        lengths = [len(prefixes[document]) + len(suffixes[query]) for query, document in pairs]
        return self._map_rows(read, lengths, token_budget, progress)

    def _last_state(self, input_ids: Tensor, attention_mask: Tensor, prefix: Any = None) -> Tensor:
        states = self._run(self.backbone.base_model, input_ids, attention_mask, prefix).last_hidden_state
        last: Tensor = states[:, -1].clone()  # a view would keep the states of all positions in memory
        return last


def listed_pairs(pairs: Any, accepted: str) -> list[tuple[Any, Any]]:
    """Pairs of anything ordered, such as the rows of an array, as a list; a ValueError if one is no pair."""
    pairs = pairs.tolist() if hasattr(pairs, "tolist") else pairs  # an array, whose rows are no sequences
    if not isinstance(pairs, Iterable):
        raise ValueError(f"pairs is {pairs!r}; accepted: a list, of which each is {accepted}")
    found = list(pairs)
    for index, pair in enumerate(found):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"pairs[{index}] is {pair!r}; accepted: {accepted}")
    return [(first, second) for first, second in found]


def _blocks(
    pairs: Sequence[tuple[int, int]], prefixes: Sequence[TokenIds]
) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
    """Pairs that are sorted by document, in blocks of a bounded number of document tokens, and each block's documents.

    In a block's pairs a document is named by its place in the block.
    """
    documents = list(dict.fromkeys(document for _, document in pairs))
    rest = list(pairs)
    for block in in_blocks([prefixes[document] for document in documents]):
        held, documents = documents[: len(block)], documents[len(block) :]
        place = {document: row for row, document in enumerate(held)}
        count = next((row for row, (_, document) in enumerate(rest) if document not in place), len(rest))
        yield [(query, place[document]) for query, document in rest[:count]], held
        rest = rest[count:]


def _cache_name(backbone: Callable[..., Any]) -> str:
    """What this backbone calls what it has read: transformers 5.24 gave it another name."""
    parameters = inspect.signature(getattr(backbone, "forward", backbone)).parameters
    return "cache" if "cache" in parameters else "past_key_values"
