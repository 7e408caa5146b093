"""Settings of the student's training."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..trainers.shared_trainer import SharedArguments, check_columns, fit_to_machine

WEIGHTS = ("listwise_weight", "mse_weight", "kl_weight")
ENCODERS = ("none", "lora", "full")


@dataclass
class RabtrieverDistillationConfig(SharedArguments, TrainingArguments):  # type: ignore[misc]  # bf16 may be None
    """Settings of `RabtrieverDistillationTrainer` beyond `TrainingArguments`."""

    train_encoder: str = field(
        default="full",
        metadata={
            "help": "How the encoder trains: all weights ('full'), adapters of rank 32 that are merged at the end "
            "('lora'), or not at all ('none', as in the paper; takes a minute on a CPU).",
            "choices": ENCODERS,
        },
    )
    encoder_learning_rate: float = field(
        default=3e-5, metadata={"help": "Learning rate of the encoder; learning_rate applies to the predictor."}
    )
    candidates: int = field(
        default=16,
        metadata={
            "help": "Documents per query that the teacher scores: relevant and uniform ones at the start, the others "
            "drawn in rounds. On household, 8 are level with 16 if the encoder trains."
        },
    )
    rounds: int = field(
        default=2,
        metadata={
            "help": "How often, at equal distances, candidates are drawn from the student's own distribution; 0 draws "
            "all of them at the start. Worth 17 points of R@1 on household at the same number of candidates (4.5 if "
            "the encoder is frozen)."
        },
    )
    listwise_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the KL between the teacher's and the student's distribution over a query's candidates. "
            "Worth 4 points of R@1 on household."
        },
    )
    temperature: float = field(
        default=2.0, metadata={"help": "Temperature of these two distributions. On household, 1 to 4 are level in R@1."}
    )
    label_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the relevance labels in the loss of a query that has labels: InfoNCE over the documents "
            "of the batch that are relevant to some training query. One of them per query is a hard negative, from the "
            "30 that the untrained student ranks highest. The rest is the teacher's. 0.9 is worth 7 points of nDCG@10 "
            "on MetaTool and none on SayCan (p .26), hard negatives 2 on VirtualHome and 1 on StrategyQA."
        },
    )
    mse_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the MSE between predicted and teacher state. Worth 1 point of R@1 on household, with "
            "kl_weight and a frozen encoder."
        },
    )
    kl_weight: float = field(
        default=0.0, metadata={"help": "Weight of the reverse KL between student and teacher at the answer position."}
    )
    activation_checkpointing: bool | None = field(
        default=False,
        metadata={"help": "Save memory: a training encoder keeps fewer activations and recomputes them."},
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not self.fp16 and self.train_encoder == "none":
            self.bf16 = False  # predictor and losses are fp32 anyway
        fit_to_machine(self)
        super().__post_init__()
        weights = {name: value for name, value in vars(self).items() if name in WEIGHTS}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"{weights}; accepted: finite weights of 0 or more, at least one above 0")
        for name in ("temperature", "encoder_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: a number above 0")
        if self.train_encoder not in ENCODERS:
            raise ValueError(f"train_encoder is {self.train_encoder!r}; accepted: {', '.join(ENCODERS)}")
        check_columns(self)
        if self.activation_checkpointing and self.train_encoder == "none":
            raise ValueError("activation_checkpointing is true; accepted: false if train_encoder is none")
        if not 0 <= self.label_share <= 1:
            raise ValueError(f"label_share is {self.label_share}; accepted: 0 to 1")
        if self.label_share and not self.listwise_weight:
            raise ValueError(f"label_share is {self.label_share} with listwise_weight 0; accepted: a weight above 0")
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}; accepted: 0 or more")
        if self.candidates <= self.rounds:
            raise ValueError(
                f"candidates is {self.candidates} with {self.rounds} rounds; accepted: at least 1 at the start and 1 "
                "per round"
            )

    def drawn(self, round_: int) -> int:
        """Candidates per query that round `round_` adds; round 0, the start, adds twice as many as a later round."""
        first = max(1, 2 * self.candidates // (self.rounds + 2))
        if round_ == 0:
            return first if self.rounds else self.candidates
        left = self.candidates - first
        return left * round_ // self.rounds - left * (round_ - 1) // self.rounds

    def check_candidates(self, available: int) -> None:
        """Raises a ValueError if a query needs more candidates than the corpus has documents."""
        if self.candidates > available:
            raise ValueError(f"candidates is {self.candidates}; accepted: at most {available}, the number of documents")

    @property
    def needs_states(self) -> bool:
        """Whether a loss term reads the teacher's hidden states; the others need only log-odds."""
        return self.mse_weight > 0
