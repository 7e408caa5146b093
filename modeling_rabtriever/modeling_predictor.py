"""The predictor: from states of a query and of a document, read apart, to the teacher's state of the pair."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_rabtriever import RabtrieverConfig
from .modeling_pooling import in_full_precision

SHARED_SCALE = 5.0  # of the shared numbers at the start: words in common matter from the first step on


class FullPrecisionModule(nn.Module):
    """Stays in fp32 when the model around it is cast (`half`, `to(bfloat16)`, `double`): the backbone alone changes."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def cast(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            if changed.dtype == torch.float32 or not changed.is_floating_point():
                return changed
            return tensor.to(changed.device, torch.float32)

        return super()._apply(cast, recurse)


class FullPrecisionLinear(FullPrecisionModule, nn.Linear):
    """A linear layer that stays in fp32."""


class SharedMap(nn.Module):
    """Words in common: the inner product of `scale / r * (C z_Q + c_Q)` and `C z_D + c_D`, `r` numbers each.

    `z` is a text's mean input embedding. Both sides go through the same `C`, which learns how words match rather than
    which documents there are.
    """

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__()
        self.map = nn.Linear(config.word_size, config.shared_dim, bias=False)  # C
        self.scale = nn.Parameter(torch.empty(config.shared_dim))
        self.query_offset = nn.Parameter(torch.empty(config.shared_dim))  # c: zero until whitening is folded in
        self.document_offset = nn.Parameter(torch.empty(config.shared_dim))

    def encode_query(self, words: Tensor) -> Tensor:
        """Mean input embeddings `(n, d)` -> `(n, r)`."""
        return self.scale / len(self.scale) * (self.map(words) + self.query_offset)

    def encode_document(self, words: Tensor) -> Tensor:
        """Mean input embeddings `(..., d)` -> `(..., r)`."""
        return self.map(words) + self.document_offset


class RabtrieverPredictor(FullPrecisionModule):
    """`h_hat = B(f(x_Q) * A x_D) + shift(x_Q)`, with `f` a 2-layer ReLU MLP (one per head).

    `predictor_type="paper"` is arXiv 2604.23336, Eq. 12: `A` and `B` are the identity and there is no shift. With
    `document_prior`, `prior(x_D) w / (w . w)` is added: it moves that document's score by `prior(x_D)` for every query.
    With `shared_dim`, the inner product of a `SharedMap` is added in the same way.
    """

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__()
        self.config = config
        heads, units = config.num_heads, config.predictor_hidden_size
        query_features, features = config.query_state_size, config.document_state_size
        k, d, learned = config.factors, config.answer_size, config.predictor_type == "hadamard"
        self.query_hidden = nn.Linear(query_features, heads * units)
        # A convolution of width 1 in groups is one linear layer per head.
        self.query_output = nn.Conv1d(heads * units, k, kernel_size=1, groups=heads)
        self.document_map = nn.Linear(features, k) if learned else nn.Identity()  # A
        self.output_map = nn.Linear(k, d, bias=False) if learned else nn.Identity()  # B
        self.shift = nn.Linear(query_features, d) if learned else None
        self.shared = SharedMap(config) if config.shared_dim else None
        self.prior = nn.Linear(features, 1) if config.document_prior else None
        whitened, sizes = config.feature_whitening, (config.query_feature_size, config.document_feature_size)
        self.query_whitening = nn.Linear(sizes[0], sizes[0]) if whitened else None
        self.document_whitening = nn.Linear(sizes[1], sizes[1]) if whitened else None
        self.apply(init_predictor_layer)

    def query_factors(self, query_states: Tensor) -> Tensor:
        """`f(x_Q)`: `(n, query_state_size)` -> `(n, factors)`."""
        return self.query_output(self.query_hidden(query_states).relu().unsqueeze(-1)).squeeze(-1)

    def encode_query(self, query_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`u`: `(B^T w) * f(x_Q)` with `w = w_T - w_F` `(d,)`, then the shared numbers, then 1 for a prior.

        `(n, query_feature_size)` -> `(n, k)`.
        """
        with in_full_precision(query_features):
            states, words = self._split(query_features)
            if isinstance(self.output_map, nn.Linear):
                answer_direction = answer_direction @ self.output_map.weight
            parts = [answer_direction * self.query_factors(states)]
            if self.shared is not None:
                parts.append(self.shared.encode_query(words))
            if self.prior is not None:
                parts.append(torch.ones_like(parts[0][:, :1]))
            return torch.cat(parts, dim=-1)

    def encode_document(self, document_features: Tensor) -> Tensor:
        """`v`: `A x_D`, then the shared numbers, then the prior: `(..., document_feature_size)` -> `(..., k)`."""
        with in_full_precision(document_features):
            states, words = self._split(document_features)
            parts = [self.document_map(states)]
            if self.shared is not None:
                parts.append(self.shared.encode_document(words))
            if self.prior is not None:
                parts.append(self.prior(states))
            return torch.cat(parts, dim=-1)

    def forward(self, query_features: Tensor, document_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`h_hat`: `(n, query_feature_size)` and `(n, document_feature_size)` -> `(n, d)`.

        With `(n, c, document_feature_size)`, `c` documents for each query: `(n, c, d)`.
        """
        with in_full_precision(query_features):
            return self._predicted(query_features, document_features, answer_direction)

    def _predicted(self, query_features: Tensor, document_features: Tensor, answer_direction: Tensor) -> Tensor:
        if document_features.dim() == 3:
            query_features = query_features.unsqueeze(1)
        query, query_words = self._split(query_features)
        document, document_words = self._split(document_features)
        factors = self.query_factors(query.flatten(0, -2)).view(*query.shape[:-1], -1)
        shift = self.shift(query) if self.shift is not None else torch.zeros_like(factors)
        predicted = self.output_map(factors * self.document_map(document)) + shift
        unit = answer_direction / answer_direction.square().sum()  # a state that moves the log-odds by 1
        if self.shared is not None:
            numbers = self.shared.encode_query(query_words) * self.shared.encode_document(document_words)
            predicted = predicted + numbers.sum(-1, keepdim=True) * unit
        if self.prior is not None:
            predicted = predicted + self.prior(document) * unit
        return predicted

    def _split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        words = self.config.word_size
        return features.split([features.shape[-1] - words, words], dim=-1)

    def whiten_query(self, pooled: Tensor) -> Tensor:
        """Pooled query states -> the features this predictor reads; the same unless it is being trained."""
        with in_full_precision(pooled):
            return pooled if self.query_whitening is None else self.query_whitening(pooled)

    def whiten_document(self, pooled: Tensor) -> Tensor:
        """Pooled document states -> the features this predictor reads; the same unless it is being trained."""
        with in_full_precision(pooled):
            return pooled if self.document_whitening is None else self.document_whitening(pooled)

    def fit_whitening(self, pooled_queries: Tensor, pooled_documents: Tensor, damping: float) -> None:
        """Puts a frozen decorrelating map before the predictor, so that gradient descent sees features of one scale.

        The states of a language model have a large mean and a few dominant directions, and training on them as they are
        stalls. The map of each side is `x -> (S + damping * s_max)^-1 (x - mean)`, where `S` is the square root of the
        features' covariance and `s_max` its largest eigenvalue: full whitening as damping goes to 0, a mere shift and
        scale when it is large. Input embeddings that both sides share go through one matrix, each with its own mean.
        Meant for a fresh predictor: the weights stay as they are. The matrix of a side is dense over all its features,
        for queries those of every anchor: 0.2 GB for four at a hidden size of 576, 6.6 GB at 3,584. Log-odds
        of `document_anchors` spread wider than states, so they set a document's `s_max`.

        Args:
            pooled_queries: `(n, query_feature_size)`, the training queries.
            pooled_documents: `(m, document_feature_size)`, the corpus.
            damping: above 0. Small values fit the training texts faster, larger ones carry over better to new texts.

        Raises:
            ValueError: the predictor is the paper's (which multiplies the document's state itself), it is whitened
                already, `damping` is out of range, or the texts of a side all have the same features.
        """
        if self.config.predictor_type == "paper":
            raise ValueError('predictor_type is "paper"; accepted for whitening: "hadamard"')
        if self.config.feature_whitening:
            raise ValueError("the features are whitened already; accepted: a predictor before fit_whitening")
        device = self.query_hidden.weight.device
        queries, query_words = self._split(pooled_queries)
        documents, document_words = self._split(pooled_documents)
        maps = [_whitening("pooled_queries", queries, damping), _whitening("pooled_documents", documents, damping)]
        if self.shared is not None:
            shared = _shared_whitening(query_words, document_words, damping)
            maps = [_side_by_side(states, words) for states, words in zip(maps, shared, strict=True)]
        self.query_whitening, self.document_whitening = (whitening.to(device) for whitening in maps)
        self.config.feature_whitening = True
        self.freeze_whitening()

    @torch.no_grad()
    def fold_whitening(self) -> None:
        """Moves the whitening into the layers behind it: the same scores, one matrix product less per text."""
        if not self.config.feature_whitening:
            return
        query_states, states = self.config.query_state_size, self.config.document_state_size
        query = _block(self.query_whitening, slice(0, query_states))
        document = _block(self.document_whitening, slice(0, states))
        fold(query, self.query_hidden)
        fold(query, self.shift)
        fold(document, self.document_map)
        if self.prior is not None:
            fold(document, self.prior)
        if self.shared is not None:
            query_words = _block(self.query_whitening, slice(query_states, None))
            _fold_shared(query_words, _block(self.document_whitening, slice(states, None)), self.shared)
        self.query_whitening = self.document_whitening = None
        self.config.feature_whitening = False

    def freeze_whitening(self) -> None:
        """The whitening is fitted, not trained, and so is what folding it leaves in the shared map."""
        for whitening in (self.query_whitening, self.document_whitening):
            if whitening is not None:
                whitening.requires_grad_(False)
        if self.shared is not None:
            self.shared.query_offset.requires_grad_(False)
            self.shared.document_offset.requires_grad_(False)


def init_predictor_layer(module: nn.Module) -> None:
    """Fresh weights of unit gain whatever the width: k and d differ by orders of magnitude between recipes."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, SharedMap):
        init.constant_(module.scale, SHARED_SCALE)
        init.zeros_(module.query_offset)
        init.zeros_(module.document_offset)


def _whitening(name: str, features: Tensor, damping: float) -> nn.Linear:
    if not damping > 0:
        raise ValueError(f"damping is {damping}; accepted: a number above 0")
    features = features.double()
    mean = features.mean(0)
    matrix = _decorrelating(name, features - mean, damping)
    return _linear(matrix, -matrix @ mean)


def _shared_whitening(queries: Tensor, documents: Tensor, damping: float) -> list[nn.Linear]:
    """One matrix for both sides, up to a number each that gives their features the same size."""
    means = [words.double().mean(0) for words in (queries, documents)]
    centred = [words.double() - mean for words, mean in zip((queries, documents), means, strict=True)]
    for name, words in zip(("pooled_queries", "pooled_documents"), centred, strict=True):
        if not words.any():
            raise ValueError(f"{name}: all {len(words)} texts have the same words; accepted: texts that differ")
    joined = torch.cat([words / words.norm(dim=1).mean() for words in centred])
    matrix = _decorrelating("the texts of both sides", joined, damping)
    matrices = [matrix * len(matrix) ** 0.5 / (words @ matrix).norm(dim=1).mean() for words in centred]
    return [_linear(own, -own @ mean) for own, mean in zip(matrices, means, strict=True)]


def _decorrelating(name: str, centred: Tensor, damping: float) -> Tensor:
    variances, directions = torch.linalg.eigh(torch.cov(centred.T, correction=0))
    spread = variances.clamp(min=0).sqrt()
    if not spread[-1] > 0:
        raise ValueError(f"{name}: all {len(centred)} texts have the same features; accepted: texts that differ")
    return directions @ torch.diag(1 / (spread + damping * spread[-1])) @ directions.T


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, device=weight.device)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer


def _side_by_side(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    return _linear(torch.block_diag(first.weight.data, second.weight.data), torch.cat([first.bias, second.bias]).data)


def _block(layer: Any, rows: slice) -> nn.Linear:
    return _linear(layer.weight.data[rows, rows], layer.bias.data[rows])


def fold(first: Any, second: Any) -> None:
    """Puts a linear map `(f, f)` into the layer behind it, in place: `second(first(x))` becomes `second(x)`."""
    weight = second.weight.double()
    second.bias.copy_(weight @ first.bias.double() + second.bias.double())
    second.weight.copy_(weight @ first.weight.double())


def _fold_shared(query: nn.Linear, document: nn.Linear, shared: SharedMap) -> None:
    """Puts the whitenings of both sides' words into the shared map: their matrices differ by a number alone."""
    ratio = query.weight.double().norm() / document.weight.double().norm()
    weight = shared.map.weight.double()
    shared.query_offset.copy_((weight @ query.bias.double() + shared.query_offset.double()) / ratio)
    shared.document_offset.copy_(weight @ document.bias.double() + shared.document_offset.double())
    shared.scale.copy_(shared.scale.double() * ratio)
    shared.map.weight.copy_(weight @ document.weight.double())
