"""The student in training. Its predictor also predicts the teacher's state; the saved student keeps three matrices."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import RabtrieverConfig, RabtrieverModel
from ..modeling_pooling import in_full_precision
from ..modeling_rabtriever import RabtrieverPredictor, init_linear

UNIT_SCALE = 40.0  # of a cosine in training: 20, as sentence-transformers has it, times a temperature of 2
DAMPING = 0.1  # of the whitening, relative to the widest direction of the features


class StudentOutput(NamedTuple):
    """What the student predicts for `c` candidates per query, `m` distinct documents in all.

    Args:
        logits: `(n, c)` fp32; predicted log-odds `w . h_hat`.
        scores: `(n, c)` fp32; `<u, v>`, which equals `logits` up to one constant per query.
        hidden_state: `(n, c, d)` fp32, if there is one; `h_hat`, the predicted state `h_{Q|D}` of the teacher.
        query_embeds: `(n, k)` fp32; `u`.
        document_embeds: `(m, k)` fp32; `v`, one row per distinct document.
    """

    logits: Tensor
    scores: Tensor
    hidden_state: Tensor | None
    query_embeds: Tensor
    document_embeds: Tensor


class TrainingPredictor(RabtrieverPredictor):
    """`h_hat = B(f(x_Q) * A x_D) + shift(x_Q)`: a product of both sides, mapped to the width of the teacher's state.

    Its log-odds are `w . h_hat = <(B^T w) * f(x_Q), A x_D> + w . shift(x_Q)`: an inner product, plus one constant
    per query. Without a document map it is arXiv 2604.23336, Eq. 12: `A` and `B` are the identity, and there is no
    shift.

    Args:
        config: the student's.
        direction: `(d,)`, `w = w_T - w_F`, the difference of the teacher's two answer rows.

    Raises:
        ValueError: there is no document map, and `d` is not the index width.
    """

    direction: Tensor

    def __init__(self, config: RabtrieverConfig, direction: Tensor) -> None:
        super().__init__(config)
        d, k = len(direction), config.embedding_dim
        if not config.document_map and d != k:
            raise ValueError(f"the teacher's states have {d} numbers; accepted without document_map: {k}, the features")
        self.register_buffer("direction", direction.detach().float().clone())
        self.output_map = nn.Linear(k, d, bias=False) if config.document_map else nn.Identity()  # B
        self.shift = nn.Linear(config.feature_size, d) if config.document_map else None
        self.query_whitening: nn.Linear | None = None
        self.document_whitening: nn.Linear | None = None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                init_linear(layer)

    @property
    def scale(self) -> Tensor:
        """`B^T w`, `(k,)`: the weight of each factor of a query in the score."""
        return self.direction @ self.output_map.weight if isinstance(self.output_map, nn.Linear) else self.direction

    def encode_query(self, features: Tensor) -> Tensor:
        """`u = (B^T w) * f(x_Q)`: `(n, feature_size)` -> `(n, k)` fp32."""
        with in_full_precision(features):
            return self.scale * super().encode_query(_through(self.query_whitening, features))

    def encode_document(self, features: Tensor) -> Tensor:
        """`v = A x_D`: `(..., feature_size)` -> `(..., k)` fp32."""
        with in_full_precision(features):
            return super().encode_document(_through(self.document_whitening, features))

    def forward(self, features: Tensor, document_embeds: Tensor) -> Tensor:
        """`h_hat`: the queries' features `(n, feature_size)` and `A x_D` `(n, c, k)` -> `(n, c, d)` fp32."""
        with in_full_precision(features):
            features = _through(self.query_whitening, features)
            factors = super().encode_query(features)
            predicted: Tensor = self.output_map(factors.unsqueeze(1) * document_embeds)
            return predicted if self.shift is None else predicted + self.shift(features).unsqueeze(1)

    def fit_whitening(self, queries: Tensor, documents: Tensor) -> None:
        """Puts a frozen whitening map before each side, so that gradient descent sees features of one scale.

        The states of a language model have a large mean and a few dominant directions; training on raw states stalls.
        The map of each side is `x -> (S + DAMPING * s_max)^-1 (x - mean)`, where `S` is the square root of the
        features' covariance and `s_max` its largest eigenvalue.

        Args:
            queries: `(n, feature_size)`, features of training queries.
            documents: `(m, feature_size)`, features of documents.

        Raises:
            ValueError: all texts of a side have the same features, or there is no document map that the documents'
                whitening could be merged into.
        """
        if isinstance(self.document_map, nn.Identity):
            raise ValueError("document_map is false; accepted: true, because the whitening is merged into it")
        device = self.direction.device
        self.query_whitening = _whitening("queries", queries).to(device).requires_grad_(False)
        self.document_whitening = _whitening("documents", documents).to(device).requires_grad_(False)

    @torch.no_grad()
    def folded(self, config: RabtrieverConfig) -> RabtrieverPredictor:
        """A predictor of three matrices with the same vectors: whitening and `B^T w` are merged into them."""
        served = RabtrieverPredictor(config).to(self.direction.device)
        _fold(self.query_whitening, self.query_hidden, served.query_hidden)
        served.query_output.weight.copy_(self.scale[:, None] * self.query_output.weight)
        served.query_output.bias.copy_(self.scale * self.query_output.bias)
        if config.document_map:
            _fold(self.document_whitening, self.document_map, served.document_map)
        return served


class UnitPredictor(RabtrieverPredictor):
    """Vectors of length 1, as a retriever has; it predicts no state. In training a score is `UNIT_SCALE` cosines."""

    def encode_query(self, features: Tensor) -> Tensor:
        """`UNIT_SCALE * u`: `(n, feature_size)` -> `(n, k)` fp32."""
        return UNIT_SCALE * super().encode_query(features)

    @torch.no_grad()
    def folded(self, config: RabtrieverConfig) -> RabtrieverPredictor:
        """The same predictor, whose scores are cosines."""
        served = RabtrieverPredictor(config).to(self.query_hidden.weight.device)
        served.load_state_dict(self.state_dict())
        return served


class TrainingStudent(RabtrieverModel):
    """A student with a `TrainingPredictor`, or a `UnitPredictor` if its vectors have length 1.

    Its encoder is frozen until a trainer unfreezes it.

    Args:
        config: the student's.
        direction: `(d,)`, the difference of the teacher's two answer rows.
    """

    _auto_class = None  # a checkpoint carries no code
    predictor: TrainingPredictor | UnitPredictor

    def __init__(self, config: RabtrieverConfig, direction: Tensor) -> None:
        super().__init__(config)
        self.predictor = UnitPredictor(config) if config.unit_vectors else TrainingPredictor(config, direction)
        self.whitens = config.document_map and not config.unit_vectors  # whether a trainer fits a whitening
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "TrainingStudent":
        """Sets training mode; a frozen encoder stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.backbone.train(mode and any(weight.requires_grad for weight in self.backbone.parameters()))
        return self

    def forward(  # type: ignore[override]  # features instead of token ids
        self, query_features: Tensor, document_features: Tensor, document_places: Tensor
    ) -> StudentOutput:
        """Predicts the teacher's state and log-odds of each query's candidates.

        Args:
            query_features: `(n, feature_size)`.
            document_features: `(m, feature_size)`, of each document once.
            document_places: `(n, c)` int64; each query's candidates, as rows of `document_features`.
        """
        query_embeds = self.predictor.encode_query(query_features)
        document_embeds = self.predictor.encode_document(document_features)
        candidates = document_embeds[document_places]
        with in_full_precision(query_embeds):
            scores = torch.einsum("nck,nk->nc", candidates, query_embeds)
        logits, hidden_state = scores, None
        if isinstance(self.predictor, TrainingPredictor):
            hidden_state = self.predictor(query_features, candidates)
            with in_full_precision(query_embeds):
                logits = hidden_state @ self.predictor.direction
        return StudentOutput(
            logits=logits,
            scores=scores,
            hidden_state=hidden_state,
            query_embeds=query_embeds,
            document_embeds=document_embeds,
        )

    def served(self) -> RabtrieverModel:
        """The student as it is saved and served; it takes over the encoder and processor of this one."""
        config: Any = self.config
        with torch.device("meta"):
            student = RabtrieverModel(config)
        student.backbone = self.backbone.requires_grad_(False)
        student.predictor = self.predictor.folded(config).requires_grad_(False)
        student.processor = self.processor
        return student.eval()


def _through(whitening: nn.Linear | None, features: Tensor) -> Tensor:
    return features if whitening is None else whitening(features)


def _whitening(side: str, features: Tensor) -> nn.Linear:
    features = features.double()
    mean = features.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((features - mean).T, correction=0))
    spread = variances.clamp(min=0).sqrt()
    if not spread[-1] > 0:
        raise ValueError(f"all {len(features)} {side} have the same features; accepted: texts that differ")
    matrix = directions @ torch.diag(1 / (spread + DAMPING * spread[-1])) @ directions.T
    layer = nn.Linear(*matrix.shape)
    layer.weight.data.copy_(matrix)
    layer.bias.data.copy_(-matrix @ mean)
    return layer


def _fold(first: nn.Linear | None, second: Any, target: Any) -> None:
    """Fills `target` with `second(first(x))` as one linear map."""
    weight, bias = second.weight.double(), second.bias.double()
    if first is not None:
        bias = weight @ first.bias.double() + bias
        weight = weight @ first.weight.double()
    target.weight.copy_(weight)
    target.bias.copy_(bias)
