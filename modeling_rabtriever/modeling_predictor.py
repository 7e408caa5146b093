"""The predictor: from the states of a query and of a document, each seen alone, to the teacher's state of the pair."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_rabtriever import RabtrieverConfig


class RabtrieverPredictor(nn.Module):
    """`h_hat = B(f(x_Q) * A x_D) + shift(x_Q)`, with `f` a 2-layer ReLU MLP (one per head).

    `predictor_type="paper"` is arXiv 2604.23336, Eq. 12: `A` and `B` are the identity and there is no shift. With
    `document_prior`, `prior(x_D) w / (w . w)` is added: it moves that document's score by `prior(x_D)` for every query.
    """

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__()
        self.config = config
        features, heads, units = config.feature_size, config.num_heads, config.predictor_hidden_size
        k, d, learned = config.factors, config.hidden_size, config.predictor_type == "hadamard"
        self.query_hidden = nn.Linear(features, heads * units)
        # A convolution of width 1 in groups is one linear layer per head.
        self.query_output = nn.Conv1d(heads * units, k, kernel_size=1, groups=heads)
        self.document_map = nn.Linear(features, k) if learned else nn.Identity()  # A
        self.output_map = nn.Linear(k, d, bias=False) if learned else nn.Identity()  # B
        self.shift = nn.Linear(features, d) if learned else None
        self.prior = nn.Linear(features, 1) if config.document_prior else None
        whitened = config.feature_whitening
        self.query_whitening = nn.Linear(features, features) if whitened else None
        self.document_whitening = nn.Linear(features, features) if whitened else None
        self.apply(init_predictor_layer)

    def query_factors(self, query_features: Tensor) -> Tensor:
        """`f(x_Q)`: `(n, features)` -> `(n, factors)`."""
        return self.query_output(self.query_hidden(query_features).relu().unsqueeze(-1)).squeeze(-1)

    def encode_query(self, query_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`u = (B^T w) * f(x_Q)` with `w = w_T - w_F` `(d,)`, and 1 for a prior: `(n, features)` -> `(n, k)`."""
        if isinstance(self.output_map, nn.Linear):
            answer_direction = answer_direction @ self.output_map.weight
        query = answer_direction * self.query_factors(query_features)
        return query if self.prior is None else nn.functional.pad(query, (0, 1), value=1.0)

    def encode_document(self, document_features: Tensor) -> Tensor:
        """`v = A x_D`, and its prior: `(..., features)` -> `(..., k)`."""
        document = self.document_map(document_features)
        return document if self.prior is None else torch.cat([document, self.prior(document_features)], dim=-1)

    def forward(self, query_features: Tensor, document_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`h_hat`: `(n, features)` and `(n, features)` [`(n, c, features)`] -> `(n, d)` [`(n, c, d)`]."""
        factors = self.query_factors(query_features)
        shift = self.shift(query_features) if self.shift is not None else torch.zeros_like(factors)
        if document_features.dim() == 3:
            factors, shift = factors.unsqueeze(1), shift.unsqueeze(1)
        predicted = self.output_map(factors * self.document_map(document_features)) + shift
        if self.prior is None:
            return predicted
        return predicted + self.prior(document_features) * answer_direction / answer_direction.square().sum()

    def whiten_query(self, pooled: Tensor) -> Tensor:
        """Pooled query states -> the features this predictor reads; the same unless it is being trained."""
        return pooled if self.query_whitening is None else self.query_whitening(pooled)

    def whiten_document(self, pooled: Tensor) -> Tensor:
        """Pooled document states -> the features this predictor reads; the same unless it is being trained."""
        return pooled if self.document_whitening is None else self.document_whitening(pooled)

    def fit_whitening(self, pooled_queries: Tensor, pooled_documents: Tensor, damping: float) -> None:
        """Puts a frozen decorrelating map before the predictor, so that gradient descent sees features of one scale.

        The states of a language model have a large mean and a few dominant directions, and training on them as they are
        stalls. The map of each side is `x -> (S + damping * s_max)^-1 (x - mean)`, where `S` is the square root of the
        features' covariance and `s_max` its largest eigenvalue: full whitening as damping goes to 0, a mere shift and
        scale when it is large. Meant for a fresh predictor: the weights stay as they are.

        Args:
            pooled_queries: `(n, features)`, the training queries.
            pooled_documents: `(m, features)`, the corpus.
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
        self.query_whitening = _whitening("pooled_queries", pooled_queries, damping).to(device)
        self.document_whitening = _whitening("pooled_documents", pooled_documents, damping).to(device)
        self.config.feature_whitening = True
        self.freeze_whitening()

    @torch.no_grad()
    def fold_whitening(self) -> None:
        """Moves the whitening into the layers behind it: the same scores, one matrix product less per text."""
        if not self.config.feature_whitening:
            return
        fold(self.query_whitening, self.query_hidden)
        fold(self.query_whitening, self.shift)
        fold(self.document_whitening, self.document_map)
        if self.prior is not None:
            fold(self.document_whitening, self.prior)
        self.query_whitening = self.document_whitening = None
        self.config.feature_whitening = False

    def freeze_whitening(self) -> None:
        """The whitening is fitted, not trained."""
        for whitening in (self.query_whitening, self.document_whitening):
            if whitening is not None:
                whitening.requires_grad_(False)


def init_predictor_layer(module: nn.Module) -> None:
    """Fresh weights of unit gain whatever the width: k and d differ by orders of magnitude between recipes."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            init.zeros_(module.bias)


def _whitening(name: str, features: Tensor, damping: float) -> nn.Linear:
    if not damping > 0:
        raise ValueError(f"damping is {damping}; accepted: a number above 0")
    features = features.double()
    mean = features.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(features.T, correction=0))
    spread = variances.clamp(min=0).sqrt()
    if not spread[-1] > 0:
        raise ValueError(f"{name}: all {len(features)} texts have the same features; accepted: texts that differ")
    matrix = directions @ torch.diag(1 / (spread + damping * spread[-1])) @ directions.T
    whitening = nn.Linear(*matrix.shape)
    whitening.weight.data.copy_(matrix)
    whitening.bias.data.copy_(-matrix @ mean)
    return whitening


def fold(first: Any, second: Any) -> None:
    """Puts a linear map `(f, f)` into the layer behind it, in place: `second(first(x))` becomes `second(x)`."""
    weight = second.weight.double()
    second.bias.copy_(weight @ first.bias.double() + second.bias.double())
    second.weight.copy_(weight @ first.weight.double())
