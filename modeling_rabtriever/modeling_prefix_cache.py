"""Document prefixes read once: keys and values of every layer, kept without padding, for any number of queries."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

# Document tokens whose attention state is held at once where a corpus is read block by block.
PREFIX_TOKENS = 16_384
_SAMPLES = 64  # numbers of each weight matrix that go into a model's fingerprint


@dataclass
class DocumentPrefixes:
    """The attention state of `m` documents, `T` tokens in all, made by `GenerativeRerankerModel.prefill`.

    There is no padding and no mask in it, so it cannot be laid out wrongly: a batch is put together, with positions and
    masks, when it is scored. Keys and values live where they were made or moved, the rest on the CPU.

    Args:
        input_ids: `(T,)` int64; the tokens of all prefixes.
        starts: `(m,)` int64; document `i` owns `lengths[i]` tokens from `starts[i]` on.
        lengths: `(m,)` int64.
        keys: per layer `(T, key-value heads, head size)`, in the backbone's dtype.
        values: the same shapes.
        model: fingerprint of the model that made them.
    """

    input_ids: Tensor
    starts: Tensor
    lengths: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    model: str

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.starts)

    def to(self, device: torch.device | str) -> "DocumentPrefixes":
        """The same with keys and values on `device`."""
        keys, values = ([part.to(device) for part in parts] for parts in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(part.nbytes for part in (*self.keys, *self.values))

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix."""
        return int(self.lengths.max())

    def token_ids(self, row: int) -> list[int]:
        """The tokens of one document's prefix."""
        ids: list[int] = self.input_ids[self.starts[row] : self.starts[row] + self.lengths[row]].tolist()
        return ids

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name, contiguous: what `safetensors.torch.save_file` writes. `model` belongs in its metadata."""
        layers = {
            f"{layer}.{name}": part[layer].contiguous()
            for name, part in (("keys", self.keys), ("values", self.values))
            for layer in range(len(part))
        }
        return {"input_ids": self.input_ids, "starts": self.starts, "lengths": self.lengths, **layers}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], model: str) -> "DocumentPrefixes":
        """The reverse of `tensors`.

        Raises:
            ValueError: a part is missing, or the parts do not fit each other.
        """
        layers = sum(name.endswith(".keys") for name in tensors)
        parts = [f"{layer}.{part}" for layer in range(layers) for part in ("keys", "values")]
        if not layers or tensors.keys() != {"input_ids", "starts", "lengths", *parts}:
            raise ValueError(f"tensors are {sorted(tensors)}; accepted: the parts DocumentPrefixes.tensors() gave")
        starts, lengths, total = tensors["starts"], tensors["lengths"], len(tensors["input_ids"])
        fits = len(starts) == len(lengths) and bool(((starts >= 0) & (lengths > 0) & (starts + lengths <= total)).all())
        if not fits or any(len(tensors[part]) != total for part in parts):
            raise ValueError(
                f"starts, lengths, keys and values do not describe the same {total} tokens; accepted: parts of "
                "one prefill"
            )
        keys, values = ([tensors[part] for part in parts[side::2]] for side in (0, 1))
        return cls(tensors["input_ids"], starts, lengths, keys, values, model)

    @classmethod
    def concatenate(cls, parts: Sequence["DocumentPrefixes"]) -> "DocumentPrefixes":
        """The documents of all parts, in order."""
        offsets = torch.tensor([0, *(len(part.input_ids) for part in parts[:-1])]).cumsum(0)
        layers = range(len(parts[0].keys))
        return cls(
            torch.cat([part.input_ids for part in parts]),
            torch.cat([part.starts + offset for part, offset in zip(parts, offsets, strict=True)]),
            torch.cat([part.lengths for part in parts]),
            [torch.cat([part.keys[layer] for part in parts]) for layer in layers],
            [torch.cat([part.values[layer] for part in parts]) for layer in layers],
            parts[0].model,
        )

    def select(self, rows: Tensor) -> "DocumentPrefixes":
        """The documents `rows`, `(n,)` int64, in that order. Nothing is copied."""
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows])

    def batch(self, rows: Tensor, device: torch.device) -> tuple[DynamicCache, Tensor]:
        """The prefixes of `rows`, left-padded to the longest of them.

        Args:
            rows: `(b,)` int64 document rows; a document may occur many times.
            device: where the batch is needed.

        Returns:
            A cache of length `l` for `b` sequences, and its mask, `(b, l)` int64.
        """
        starts, lengths = self.starts[rows, None], self.lengths[rows, None]
        longest = int(lengths.max())
        tokens = torch.arange(longest) - longest + lengths  # place in the document, negative for padding
        mask = tokens >= 0
        where = starts + tokens.clamp(min=0)  # padding repeats the first token; the mask hides it
        if (rows == rows[0]).all():  # one document for the whole batch: a view, no copy
            where = where[:1]

        def rows_of(part: Tensor) -> Tensor:
            padded = part[where.to(part.device)].to(device).transpose(1, 2)
            return padded.expand(len(rows), *padded.shape[1:])

        layers = [(rows_of(keys), rows_of(values)) for keys, values in zip(self.keys, self.values, strict=True)]
        return DynamicCache(layers), mask.long().to(device)


def take_prefixes(cache: Any, input_ids: Tensor, attention_mask: Tensor, model: str) -> DocumentPrefixes:
    """Takes a filled cache of left-padded prompts apart, dropping the padding. Keys and values stay on their device.

    Raises:
        ValueError: the backbone keeps something else than keys and values of all tokens (recurrent state, a window).
    """
    mask = attention_mask.bool()
    shape = tuple(mask.shape)
    layers = getattr(cache, "layers", None) or []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for layer in layers:
        states: list[Any] = [getattr(layer, name, None) for name in ("keys", "values")]
        if any(part is None or part.dim() != 4 or (part.shape[0], part.shape[2]) != shape for part in states):
            break
        for part, kept in zip(states, (keys, values), strict=True):
            kept.append(part.transpose(1, 2)[mask])
    if not layers or len(keys) < len(layers):
        raise ValueError(
            "the backbone's cache does not hold keys and values of every token; accepted: backbones with full "
            "attention in all layers. Score without prefill()"
        )
    lengths = mask.sum(-1).cpu()
    return DocumentPrefixes(input_ids[mask].cpu(), lengths.cumsum(0) - lengths, lengths, keys, values, model)


def model_fingerprint(model: PreTrainedModel) -> str:
    """A digest of some numbers of every weight matrix: cheap even for billions of weights, different after training.

    Of a quantised model's the matrices that are not: engines lay the others out anew when they first run.
    """
    digest = hashlib.sha256()
    for name, weights in floating_weights(model):
        flat = weights.detach().reshape(-1)
        sample = flat[:: max(len(flat) // _SAMPLES, 1)].cpu().contiguous()
        digest.update(f"{name} {tuple(weights.shape)} {weights.dtype}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def floating_weights(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Name and weights of all that is no whole number, in the order of the names."""
    return sorted((name, weights) for name, weights in model.named_parameters() if weights.is_floating_point())


def in_blocks(sequences: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Consecutive sequences, in lists of at most `PREFIX_TOKENS` tokens (one sequence at least)."""
    block: list[list[int]] = []
    held = 0
    for ids in sequences:
        if block and held + len(ids) > PREFIX_TOKENS:
            yield block
            block, held = [], 0
        block.append(ids)
        held += len(ids)
    yield block
