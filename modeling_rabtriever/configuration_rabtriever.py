"""Configuration of the student, and what it shares with the teacher's."""

from typing import Any, ClassVar

import transformers

if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 20):  # the first file a saved model runs
    raise ImportError(
        f"Rabtriever's model code needs transformers >= 5.20, found {transformers.__version__}: "
        "pip install --upgrade transformers"
    )

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

POOLINGS = ("first", "last", "mean")
WIDEST = 1 << 16  # common vector stores take no wider vectors, and the matrices have gigabytes
# Their position 0 belongs to padding, and real tokens start behind the padding token's id.
POSITIONS_BEHIND_PADDING = (
    "camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


class PromptedConfig(PreTrainedConfig):
    """A model around a text model, its `text_config`."""

    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2")
    }

    text_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, dict | PreTrainedConfig | None):
            raise ValueError(f"text_config is {self.text_config!r}; accepted: the configuration of a text model")
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in `PreTrainedConfig`; a folder without a backbone is refused, where transformers would make one of 7B."""
        if not config_dict.get("text_config"):
            raise ValueError("config.json is missing or has no text_config; accepted: as save_pretrained wrote it")
        return super().from_dict(config_dict, **kwargs)

    @property
    def hidden_size(self) -> int:
        """Width `d` of the text model's hidden state."""
        return int(self.text_config.hidden_size)  # type: ignore[union-attr]

    @property
    def window(self) -> int | None:
        """The text model's window in tokens; `None` if its configuration states none."""
        config: Any = self.text_config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None or positions < 1:  # XLNet says -1
            return None
        behind_padding = config.model_type in POSITIONS_BEHIND_PADDING and config.pad_token_id is not None
        return positions - config.pad_token_id - 1 if behind_padding else positions


class RabtrieverConfig(PromptedConfig):
    """A text encoder and three matrices: a query's vector is a 2-layer ReLU MLP of its features, a document's a map.

    Args:
        text_config: configuration of the encoder: the teacher's language model, or any other text model.
        embedding_dim: the index width `k`: numbers stored per document, at most 65,536. `None` means the hidden size.
        query_hidden_size: hidden units of the query's MLP, at most as many. `None` means four times the hidden size.
        feature_poolings: how a text's states become its features, joined: `"first"` token (CLS), `"last"`, `"mean"`.
        document_map: whether a document's vector is a linear map of its features, or (arXiv 2604.23336, Eq. 12) they
            themselves, with `embedding_dim` their number.
        unit_vectors: whether both vectors have length 1, so that the score is their cosine.

    Raises:
        ValueError: a value is out of range; the message names it and says what is accepted.
    """

    model_type = "rabtriever"

    embedding_dim: int = None  # type: ignore[assignment]  # filled in below
    query_hidden_size: int = None  # type: ignore[assignment]  # filled in below
    feature_poolings: list[str] | tuple[str, ...] = ("last", "mean")
    document_map: bool = True
    unit_vectors: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if "predictor_type" in kwargs:
            raise ValueError(
                "this configuration is older than Rabtriever 0.1; accepted: what load_model(old).save_pretrained(new) "
                "makes of it (modeling_rabtriever.loading)"
            )
        super().__post_init__(**kwargs)
        if not isinstance(self.feature_poolings, (list, tuple)):
            raise ValueError(f"feature_poolings is {self.feature_poolings!r}; accepted: a list")
        self.feature_poolings = list(self.feature_poolings)
        for pooling in self.feature_poolings:
            if pooling not in POOLINGS:
                raise ValueError(f"feature_poolings holds {pooling!r}; accepted: {', '.join(POOLINGS)}")
        if not self.feature_poolings or len(set(self.feature_poolings)) != len(self.feature_poolings):
            raise ValueError(f"feature_poolings is {self.feature_poolings}; accepted: one or more, each once")
        for name in ("document_map", "unit_vectors"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: true or false")
        if self.embedding_dim is None:
            self.embedding_dim = self.hidden_size if self.document_map else self.feature_size
        if self.query_hidden_size is None:
            self.query_hidden_size = min(4 * self.hidden_size, WIDEST)
        for name in ("embedding_dim", "query_hidden_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= WIDEST:
                raise ValueError(f"{name} is {value!r}; accepted: a whole number from 1 to {WIDEST:,}")
        if not self.document_map and self.embedding_dim != self.feature_size:
            found, features = self.embedding_dim, self.feature_size
            raise ValueError(f"embedding_dim is {found}; accepted without document_map: {features}, the feature_size")

    @property
    def feature_size(self) -> int:
        """Numbers per text that the predictor reads: hidden size x poolings."""
        return self.hidden_size * len(self.feature_poolings)
