"""Configuration of the teacher, a generative reranker."""

from typing import Any

from .configuration_rabtriever import PromptedConfig


class GenerativeRerankerConfig(PromptedConfig):
    """A causal language model that answers "is this document right for this query?" with one of two tokens.

    Args:
        text_config: configuration of the wrapped causal language model (a dict needs its `model_type`).
        true_token_id: vocabulary id of the answer "relevant". Checked against the vocabulary.
        false_token_id: vocabulary id of the answer "not relevant". Must differ from `true_token_id`.

    Raises:
        ValueError: one of the two ids is missing while the other is set, they are equal, or outside the vocabulary.
    """

    model_type = "generative_reranker"

    true_token_id: int | None = None
    false_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is None and self.true_token_id is not None:  # else a 7B model of default sizes is built
            raise ValueError("text_config is None; accepted: the configuration of a causal language model")
        super().__post_init__(**kwargs)
        self._check_answers()

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
