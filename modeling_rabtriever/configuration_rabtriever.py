"""Configurations of the teacher (generative reranker) and of the student (Rabtriever)."""

from typing import Any, ClassVar

import transformers

if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 20):  # the first file a saved model runs
    raise ImportError(
        f"Rabtriever's model code needs transformers >= 5.20, found {transformers.__version__}: "
        "pip install --upgrade transformers"
    )

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

PREDICTOR_TYPES = ("paper", "hadamard")
POOLINGS = ("first", "last", "mean")
# Their position 0 belongs to padding, and real tokens start behind the padding token's id.
POSITIONS_BEHIND_PADDING = (
    "camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


class GenerativeRerankerConfig(PreTrainedConfig):
    """A causal language model that answers "is this document right for this query?" with one of two tokens.

    Args:
        text_config: configuration of the wrapped causal language model (a dict needs its `model_type`).
        true_token_id: vocabulary id of the answer "relevant". Checked against the vocabulary.
        false_token_id: vocabulary id of the answer "not relevant". Must differ from `true_token_id`.

    Raises:
        ValueError: one of the two ids is missing while the other is set, they are equal, or outside the vocabulary.
    """

    model_type = "generative_reranker"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2")
    }

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    true_token_id: int | None = None
    false_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is None and self.true_token_id is not None:  # else a 7B model of default sizes is built
            raise ValueError("text_config is None; accepted: the configuration of a causal language model")
        super().__post_init__(**kwargs)
        self._check_answers()

    @property
    def hidden_size(self) -> int:
        """Width `d` of the backbone's hidden state."""
        return int(self.text_config.hidden_size)  # type: ignore[union-attr]

    @property
    def window(self) -> int | None:
        """The backbone's window in tokens; `None` if its configuration states none."""
        config: Any = self.text_config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None or positions < 1:  # XLNet says -1
            return None
        behind_padding = config.model_type in POSITIONS_BEHIND_PADDING and config.pad_token_id is not None
        return positions - config.pad_token_id - 1 if behind_padding else positions

    @property
    def attention_window(self) -> int | None:
        """Tokens that every layer attends to: `None` for all of them, 0 if a layer keeps something else than tokens."""
        config: Any = self.text_config
        kinds = set(getattr(config, "layer_types", None) or ())
        windows = []
        if "sliding_attention" in kinds or (not kinds and getattr(config, "use_sliding_window", True)):
            windows.append(getattr(config, "sliding_window", None))
        if "chunked_attention" in kinds or not kinds:  # transformers' caches read it where no kinds are named
            windows.append(getattr(config, "attention_chunk_size", None))
        if "local" in str(getattr(config, "attention_types", "")):  # GPT-Neo
            windows.append(getattr(config, "window_size", None))
        if kinds - {"full_attention", "sliding_attention", "chunked_attention"}:
            windows.append(0)
        return min((int(window) for window in windows if window is not None), default=None)

    def _check_answers(self) -> None:
        ids = {"true_token_id": self.true_token_id, "false_token_id": self.false_token_id}
        if all(value is None for value in ids.values()):  # transformers builds an empty instance when it saves a diff
            return
        vocabulary = self.text_config.vocab_size  # type: ignore[union-attr]
        for name, value in ids.items():
            if value is None or isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocabulary:
                raise ValueError(f"{name} is {value!r}; accepted: an id of the vocabulary, 0 to {vocabulary - 1}")
        if self.true_token_id == self.false_token_id:
            raise ValueError(
                f"true_token_id and false_token_id are both {self.true_token_id}; accepted: two that differ"
            )


class RabtrieverConfig(GenerativeRerankerConfig):
    """A text encoder, the teacher's two answer rows, and a predictor whose score is an inner product.

    Args:
        text_config: configuration of the encoder: the teacher's language model, or any other text model.
        true_token_id: as in `GenerativeRerankerConfig`; `None` if the encoder is not the teacher's.
        false_token_id: likewise.
        answer_size: width of the teacher's states, which the predictor predicts; `None` means the encoder's own width.
        predictor_type: `"paper"` (arXiv 2604.23336, Eq. 12: `MLP(e_Q) * e_D`, index width = hidden size) or
            `"hadamard"` (`B(f(e_Q) * A e_D) + shift(e_Q)` with a learned document map `A` and a free index width).
        embedding_dim: the index width `k`: numbers stored per document. `"paper"` fixes it to the hidden size (`None`
            is filled in).
        num_heads: how many separate query MLPs produce the `k` numbers (`"hadamard"` only); divides `embedding_dim`
            (less `shared_dim`, and one with `document_prior`).
        predictor_hidden_size: hidden units of each query MLP; `None` means the backbone's hidden size.
        shared_dim: how many of the `k` numbers compare the words of both sides, by one linear map of their input
            embeddings that query and document share (`"hadamard"` only). It needs no example of every word, so it
            carries over where query and document name the same things. 0: none.
        document_prior: whether the last of the `k` numbers is a score of the document by itself, added for every query
            (`"hadamard"` only).
        feature_layers: hidden states the features are read from, as in `output_hidden_states`: `-1` is the last layer
            after the final norm, `0` the input embeddings.
        feature_poolings: how each layer becomes one vector: `"first"` (first token, often called CLS), `"last"` (last
            token), `"mean"` (mean over the text's tokens). Layers and poolings are joined, layer by layer. The paper
            uses the last token of the last layer.
        query_anchors: document prefixes, as token ids, that every query is read behind, one pass of the backbone each,
            instead of alone (`"hadamard"` only). The backbone was trained to read queries behind documents, and says
            more of one when it does. Documents are read as ever. Empty: one pass, the query alone.
        document_anchors: query suffixes, as token ids, that are read behind every document, one pass of the backbone
            each, when it is encoded (`"hadamard"` only). The teacher's log-odds join the document's states, a number
            for each: what it answers to known queries tells of a document that distillation never saw. Empty: one
            pass, the document alone.
        feature_whitening: whether a frozen linear map decorrelates the features before the predictor reads them. It is
            set while training (`RabtrieverPredictor.fit_whitening`) and gone in finished models, where it has been
            folded into the predictor's weights.

    Raises:
        ValueError: a value is out of range; the message names it and says what is accepted.
    """

    model_type = "rabtriever"

    answer_size: int = None  # type: ignore[assignment]  # filled in below
    predictor_type: str = "hadamard"
    embedding_dim: int = None  # type: ignore[assignment]  # filled in below
    num_heads: int = 1
    shared_dim: int = 0
    document_prior: bool = False
    predictor_hidden_size: int = None  # type: ignore[assignment]  # filled in below
    feature_layers: list[int] | tuple[int, ...] = (-1,)
    feature_poolings: list[str] | tuple[str, ...] = ("last", "mean")
    query_anchors: list[list[int]] | tuple[list[int], ...] = ()
    document_anchors: list[list[int]] | tuple[list[int], ...] = ()
    feature_whitening: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name in ("feature_layers", "feature_poolings", "query_anchors", "document_anchors"):
            if not isinstance(getattr(self, name), (list, tuple)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: a list")
            setattr(self, name, list(getattr(self, name)))
        for name in ("document_prior", "feature_whitening"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: true or false")
        if self.predictor_type not in PREDICTOR_TYPES:
            raise ValueError(f"predictor_type is {self.predictor_type!r}; accepted: {', '.join(PREDICTOR_TYPES)}")
        self._check_features()
        if self.answer_size is None:
            self.answer_size = self.hidden_size
        if self.predictor_hidden_size is None:
            self.predictor_hidden_size = self.hidden_size
        if self.predictor_type == "paper":
            self._check_paper()
        elif self.embedding_dim is None:
            self.embedding_dim = self.hidden_size
        for name in ("answer_size", "embedding_dim", "num_heads", "predictor_hidden_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; accepted: a whole number of at least 1")
        if isinstance(self.shared_dim, bool) or not isinstance(self.shared_dim, int) or self.shared_dim < 0:
            raise ValueError(f"shared_dim is {self.shared_dim!r}; accepted: a whole number of at least 0")
        config: Any = self.text_config
        width = getattr(config, "embedding_size", None) or self.hidden_size  # ALBERT's and ELECTRA's are narrower
        if self.shared_dim and width != self.hidden_size:
            raise ValueError(
                f"shared_dim is {self.shared_dim}; accepted: 0 with {config.model_type}, whose input embeddings have "
                f"{width} numbers and whose states have {self.hidden_size}"
            )
        if self.factors < 1 or self.factors % self.num_heads:
            less = f" less shared_dim, {self.shared_dim}" if self.shared_dim else ""
            less += " less one for the document's prior" if self.document_prior else ""
            raise ValueError(
                f"embedding_dim is {self.embedding_dim}; accepted{less}: a multiple of num_heads, {self.num_heads}"
            )

    @property
    def factors(self) -> int:
        """How many of the `k` numbers the query's factors multiply: not the shared ones, nor a document's prior."""
        return self.embedding_dim - self.shared_dim - self.document_prior

    @property
    def state_size(self) -> int:
        """Numbers of one pass that are pooled states: hidden size x layers x poolings."""
        return self.hidden_size * len(self.feature_layers) * len(self.feature_poolings)

    @property
    def query_state_size(self) -> int:
        """Numbers per query that are pooled states: `state_size` for each anchor, or once without anchors."""
        return self.state_size * max(len(self.query_anchors), 1)

    @property
    def document_state_size(self) -> int:
        """Numbers per document that the document map reads: `state_size`, and one for each anchor."""
        return self.state_size + len(self.document_anchors)

    @property
    def word_size(self) -> int:
        """Numbers per text that are its mean input embedding, which the shared numbers read: 0 without them."""
        return self.hidden_size if self.shared_dim else 0

    @property
    def query_feature_size(self) -> int:
        """Numbers per query handed to the predictor: pooled states, then the mean input embedding."""
        return self.query_state_size + self.word_size

    @property
    def document_feature_size(self) -> int:
        """Numbers per document handed to the predictor: pooled states, log-odds, then the mean input embedding."""
        return self.document_state_size + self.word_size

    def _check_features(self) -> None:
        layers = int(self.text_config.num_hidden_layers)  # type: ignore[union-attr]
        for layer in self.feature_layers:
            if isinstance(layer, bool) or not isinstance(layer, int) or not -layers - 1 <= layer <= layers:
                raise ValueError(f"feature_layers holds {layer!r}; accepted: whole numbers {-layers - 1} to {layers}")
        for pooling in self.feature_poolings:
            if pooling not in POOLINGS:
                raise ValueError(f"feature_poolings holds {pooling!r}; accepted: {', '.join(POOLINGS)}")
        for name in ("feature_layers", "feature_poolings"):
            found = getattr(self, name)
            if not found or len(set(found)) != len(found):
                raise ValueError(f"{name} is {found}; accepted: one or more, each once")
        for name in ("query_anchors", "document_anchors"):
            self._check_anchors(name)

    def _check_anchors(self, name: str) -> None:
        anchors, vocabulary = getattr(self, name), self.text_config.vocab_size  # type: ignore[union-attr]
        for anchor in anchors:
            known = isinstance(anchor, list) and all(
                isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary for token in anchor
            )
            if not known or not anchor or anchors.count(anchor) > 1:
                raise ValueError(
                    f"{name} holds {anchor!r}; accepted: lists of ids of the vocabulary, 0 to {vocabulary - 1}, none "
                    "empty, each once"
                )

    def _check_paper(self) -> None:
        # Eq. 12 multiplies the document's state itself, so there is nothing to map and one width only.
        if self.embedding_dim is None:
            self.embedding_dim = self.hidden_size
        required = {
            "answer_size": self.hidden_size,
            "embedding_dim": self.hidden_size,
            "num_heads": 1,
            "shared_dim": 0,
            "document_prior": False,
            "feature_layers": [-1],
            "feature_poolings": ["last"],
            "query_anchors": [],
            "document_anchors": [],
            "feature_whitening": False,
        }
        for name, value in required.items():
            if getattr(self, name) != value:
                raise ValueError(f'{name} is {getattr(self, name)}; accepted with predictor_type "paper": {value}')
