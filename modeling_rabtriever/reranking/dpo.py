"""Direct preference optimisation of a teacher: the right answer of a pair is chosen, the wrong one rejected."""

import math
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from trl import DPOConfig, DPOTrainer

from ..machine import fit_to_machine
from ..trainers.shared_trainer import BatchArguments, SharedTrainer


@dataclass
class RerankerDPOConfig(BatchArguments, DPOConfig):
    """TRL's `DPOConfig` for prompts the processor has tokenised and cut before."""

    precompute_ref_log_probs: bool = field(
        default=True, metadata={"help": "Run the reference once over the data instead of keeping it in memory."}
    )
    activation_checkpointing: bool | None = field(
        default=True, metadata={"help": "Trade compute for memory: recompute activations in the backward pass."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Not used: the processor has cut document and query before."}
    )

    def __post_init__(self) -> None:
        fit_to_machine(self)
        super().__post_init__()
        if self.max_length is not None:
            raise ValueError(f"max_length is {self.max_length}; accepted: set the limits of the teacher's processor")
        if not self.precompute_ref_log_probs:
            raise ValueError("precompute_ref_log_probs is false; accepted: true, the reference is not kept in memory")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}; accepted: a number above 0")


class RerankerDPOTrainer(SharedTrainer, DPOTrainer):
    """`DPOTrainer` over rows that hold token ids already.

    With answers of one token each the loss is `-log sigmoid(beta * s * (z - z_ref))`, where `z` are log-odds and `s` is
    1 for relevant pairs and -1 for others (tested): the normalisation over the vocabulary cancels.
    """

    _tag_names = ["generative-reranker", "dpo"]  # noqa: RUF012 (TRL's convention)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's, over the batch of all processes."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates the loss alone)")
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        return self.batch_means({"loss": loss}, {"loss": len(inputs["input_ids"])})["loss"]
