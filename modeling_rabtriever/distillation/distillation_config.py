"""Settings of the student's training."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..machine import fit_to_machine
from ..trainers.shared_trainer import SharedArguments
from .losses import LISTWISE_FORMS

STATES_DTYPES = ("float32", "float16")
WEIGHTS = ("mse_weight", "kl_weight", "listwise_weight")
KL_FORMS = ("reverse", "forward", "vocabulary")
ENCODERS = ("none", "lora", "full")


@dataclass
class RabtrieverDistillationConfig(SharedArguments, TrainingArguments):  # type: ignore[misc]  # bf16 may be None
    """Settings of `RabtrieverDistillationTrainer` beyond `TrainingArguments`."""

    mse_weight: float = field(default=0.1, metadata={"help": "Weight of the MSE between predicted and teacher state."})
    kl_weight: float = field(
        default=0.1, metadata={"help": "Weight of the KL between student and teacher at the answer position."}
    )
    kl_form: str = field(
        default="reverse",
        metadata={
            "help": "Which KL that is: 'reverse' or 'forward' over the two answers; or 'vocabulary', reverse over all "
            "tokens (one row of logits per pair is held).",
            "choices": KL_FORMS,
        },
    )
    listwise_weight: float = field(
        default=1.0, metadata={"help": "Weight of the reverse KL over each query's candidate documents."}
    )
    listwise_form: str = field(
        default="reverse", metadata={"help": "Which KL over the candidates that is.", "choices": LISTWISE_FORMS}
    )
    label_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the relevance labels in what the listwise KL aims at, for queries that have labels; the "
            "rest is the teacher's (forward KL only)."
        },
    )
    in_batch_documents: bool = field(
        default=False,
        metadata={"help": "Whether other queries' candidates count as irrelevant ones (forward KL only)."},
    )
    temperature: float = field(default=2.0, metadata={"help": "Temperature of the listwise KL."})
    train_encoder: str = field(
        default="none",
        metadata={
            "help": "How the encoder trains: not at all ('none', the paper's way), with all weights ('full'), or by "
            "adapters that are merged at the end ('lora').",
            "choices": ENCODERS,
        },
    )
    encoder_learning_rate: float = field(
        default=3e-5, metadata={"help": "Learning rate of a training encoder; learning_rate is the predictor's."}
    )
    encoder_lora_rank: int = field(default=32, metadata={"help": "Rank of the adapters with train_encoder lora."})
    initial_candidates: int = field(
        default=16, metadata={"help": "Candidates per query at the start: its positives, the rest uniform."}
    )
    refresh_rounds: int = field(
        default=3, metadata={"help": "How often candidates are added while training, at equal distances."}
    )
    refresh_candidates: int = field(default=8, metadata={"help": "Candidates added per query and round."})
    on_policy_fraction: float = field(
        default=1.0,
        metadata={"help": "Share of the added candidates drawn from the student's own distribution; others uniform."},
    )
    sampling_temperature: float = field(
        default=1.0, metadata={"help": "Temperature of the student's distribution when candidates are drawn."}
    )
    whitening_damping: float | None = field(
        default=0.1,
        metadata={
            "help": "Damping of the frozen map that decorrelates the features while training "
            "(RabtrieverPredictor.fit_whitening); null trains on the features as they are, as the paper does, and so "
            "does an encoder from a sentence-transformers folder."
        },
    )
    states_dtype: str = field(
        default="float32",
        metadata={"help": "Type of the teacher's states on disk.", "choices": STATES_DTYPES},
    )
    activation_checkpointing: bool | None = field(
        default=False,
        metadata={"help": "Whether a training encoder keeps fewer activations and computes them again."},
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Stays false: batches hold row numbers, which the model never sees."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not self.fp16 and self.train_encoder == "none":
            self.bf16 = False  # predictor and losses are fp32; there is nothing large to save on
        fit_to_machine(self)
        super().__post_init__()
        weights = {name: value for name, value in vars(self).items() if name in WEIGHTS}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"{weights}; accepted: none below 0 or infinite and at least one above")
        for name in ("temperature", "sampling_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: a number above 0")
        if not 0 <= self.on_policy_fraction <= 1:
            raise ValueError(f"on_policy_fraction is {self.on_policy_fraction}; accepted: 0 to 1")
        for name, accepted in (
            ("states_dtype", STATES_DTYPES),
            ("kl_form", KL_FORMS),
            ("listwise_form", LISTWISE_FORMS),
            ("train_encoder", ENCODERS),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: {', '.join(accepted)}")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true; accepted: false")
        if self.activation_checkpointing and self.train_encoder == "none":
            raise ValueError("activation_checkpointing is true; accepted: false for an encoder that does not train")
        if self.in_batch_documents and self.listwise_form != "forward":
            raise ValueError(f"in_batch_documents is true with listwise_form {self.listwise_form!r}; accepted: forward")
        if self.in_batch_documents and not self.listwise_weight:
            raise ValueError("in_batch_documents is true with listwise_weight 0; accepted: a weight above 0")
        if not 0 <= self.label_share <= 1:
            raise ValueError(f"label_share is {self.label_share}; accepted: 0 to 1")
        if self.label_share and (self.listwise_form != "forward" or not self.listwise_weight):
            raise ValueError(
                f"label_share is {self.label_share} with listwise_form {self.listwise_form!r} and listwise_weight "
                f"{self.listwise_weight}; accepted: forward, and a weight above 0"
            )
        if self.encoder_lora_rank < 1:
            raise ValueError(f"encoder_lora_rank is {self.encoder_lora_rank}; accepted: 1 or more")
        if not 0 < self.encoder_learning_rate < math.inf:
            raise ValueError(f"encoder_learning_rate is {self.encoder_learning_rate}; accepted: a number above 0")
        if self.refresh_rounds < 0:
            raise ValueError(f"refresh_rounds is {self.refresh_rounds}; accepted: 0 or more")
        if self.refresh_rounds and self.refresh_candidates < 1:
            raise ValueError(f"refresh_candidates is {self.refresh_candidates}; accepted: 1 or more where rounds are")

    def check_candidates(self, available: int) -> None:
        """Raises a ValueError if a run needs more candidates of a query than there are documents to ask about."""
        total = self.initial_candidates + self.refresh_rounds * self.refresh_candidates
        if total > available:
            raise ValueError(
                f"initial_candidates + refresh_rounds * refresh_candidates is {total}; accepted: at most {available}, "
                "the documents a query's teacher can be asked about"
            )

    @property
    def needs_states(self) -> bool:
        """Whether a term reads the teacher's states; log-odds are enough for the others."""
        return self.mse_weight > 0 or (self.kl_weight > 0 and self.kl_form == "vocabulary")

    @property
    def on_policy(self) -> int:
        """Candidates per query and round that the student draws."""
        return round(self.refresh_candidates * self.on_policy_fraction)
