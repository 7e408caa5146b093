"""Training of the teacher: TRL's supervised fine-tuning, with the loss on the answer token alone."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from trl import SFTConfig, SFTTrainer

from training.losses import check_finite, listwise_cross_entropy
from training.machine import fit_to_machine

OBJECTIVES = ("sft", "listwise")


@dataclass
class LanguageModelTrainingConfig(SFTConfig):
    """TRL's `SFTConfig` for prompts the processor has tokenised and cut before."""

    activation_checkpointing: bool | None = field(
        default=True, metadata={"help": "Trade compute for memory: recompute activations in the backward pass."}
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "Not used: the processor has cut document and query before, without touching the answer."},
    )

    def __post_init__(self) -> None:
        fit_to_machine(self)
        super().__post_init__()
        if self.max_length is not None:
            raise ValueError(f"max_length is {self.max_length}; accepted: set max_document_length, max_query_length")
        self.dataset_kwargs = {"skip_prepare_dataset": True}
        self.remove_unused_columns = False


@dataclass
class RerankerTrainingConfig(LanguageModelTrainingConfig):
    """Settings of `RerankerTrainer` beyond TRL's `SFTConfig`."""

    objective: str = field(
        default="sft",
        metadata={
            "help": "'sft': cross-entropy of the answer token, pair by pair. 'listwise': softmax over the log-odds of "
            "a query's candidates, which trains the ranking itself.",
            "choices": OBJECTIVES,
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; accepted: {', '.join(OBJECTIVES)}")


class RerankerTrainer(SFTTrainer):
    """`SFTTrainer` over groups of pairs: one relevant document first, then its negatives.

    Only the logits at the answer position are computed; TRL's own loss projects every position through the head on
    machines without Triton. For `objective="sft"` the value is the same (tested).

    Args:
        group_size: pairs per group; `per_device_train_batch_size` must be a multiple of it.
        answers: token ids of the answers, `(true, false)`.
        kwargs: those of `SFTTrainer`.

    Raises:
        ValueError: the batch size splits groups, or a loss is not finite.
    """

    _tag_names = ["generative-reranker", "sft"]  # noqa: RUF012 (TRL's convention)
    _name = "generative reranker"
    loss_is_scaled_for_ga = False  # the loss is a mean over the batch

    def __init__(
        self, *, group_size: int, answers: tuple[int, int], args: RerankerTrainingConfig, **kwargs: Any
    ) -> None:
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            if getattr(args, name) % group_size:
                raise ValueError(
                    f"{name} is {getattr(args, name)}; accepted: a multiple of the group size {group_size} "
                    "(a relevant document and its negatives)"
                )
        super().__init__(args=args, **kwargs)
        self.group_size = group_size
        self.answers = answers

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss; also counts how often the relevant document leads its group."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates the loss alone)")
        positions = inputs["labels"].ne(-100).int().argmax(-1, keepdim=True) - 1
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=positions,
            use_cache=False,
        ).logits[:, 0]
        true_id, false_id = self.answers
        log_odds = (logits[:, true_id] - logits[:, false_id]).float().view(-1, self.group_size)
        if self.args.objective == "listwise":
            loss = listwise_cross_entropy(log_odds)
        else:
            loss = F.cross_entropy(logits.float(), inputs["labels"].gather(1, positions + 1)[:, 0])
        check_finite("the teacher's loss", loss=loss)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["leads_group"].append((log_odds.argmax(-1) == 0).float().mean().item())
        return loss
