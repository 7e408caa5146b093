"""Training of the teacher: TRL's supervised fine-tuning, with the loss on the answer token alone or over candidates."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from .. import GenerativeRerankerModel
from ..machine import fit_to_machine
from ..trainers.processes import on_main
from ..trainers.shared_trainer import BatchArguments, SharedTrainer
from .backbone import padded
from .document_states import attach_joint_predictor, document_lm_loss, joint_parameters, joint_scores
from .losses import check_finite, listwise_cross_entropy
from .pairs import GroupCollator
from .watch import CorpusWatch

OBJECTIVES = ("sft", "listwise")


@dataclass
class LanguageModelTrainingConfig(BatchArguments, SFTConfig):
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
    joint_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of a student trained beside the teacher, with gradient into the backbone: a predictor that "
            "ranks each group from the states of document and query read apart. It is dropped at the end. 0 for none."
        },
    )
    joint_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of that student, whose weights are fresh; null takes the backbone's, which is too "
            "low for it where the backbone is pretrained."
        },
    )
    document_lm_weight: float = field(
        default=0.0, metadata={"help": "Weight of language modelling on the documents' part of the prompt. 0 for none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; accepted: {', '.join(OBJECTIVES)}")
        for name in ("joint_weight", "document_lm_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 0 or more")
        if self.joint_learning_rate is not None and not 0 < self.joint_learning_rate < math.inf:
            raise ValueError(f"joint_learning_rate is {self.joint_learning_rate}; accepted: null or a number above 0")


def check_batches(args: TrainingArguments, group_size: int) -> None:
    """Raises a ValueError if a batch would split groups of a relevant document and its negatives."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        if getattr(args, name) % group_size:
            raise ValueError(
                f"{name} is {getattr(args, name)}; accepted: a multiple of the group size {group_size} "
                "(a relevant document and its negatives)"
            )


class RerankerTrainer(SharedTrainer, SFTTrainer):
    """`SFTTrainer` over groups of pairs: one relevant document first, then its negatives.

    Only the logits at the answer position are computed; TRL's own loss projects every position through the head on
    machines without Triton. For `objective="sft"` the value is the same (tested).

    Args:
        group_size: pairs per group; `per_device_train_batch_size` must be a multiple of it.
        reranker: the teacher; its backbone is trained.
        args: the settings.
        corpus_watch: queries and documents that are ranked at every evaluation, as `eval_corpus_success@1`, ...; a
            relevant document that leads its group can still be lost among all the others.
        kwargs: those of `SFTTrainer`.

    Raises:
        ValueError: the batch size splits groups, or a loss is not finite.
    """

    _tag_names = ["generative-reranker", "sft"]  # noqa: RUF012 (TRL's convention)
    _name = "generative reranker"
    loss_is_scaled_for_ga = False  # the loss is a mean over the batch

    def __init__(
        self,
        *,
        group_size: int,
        reranker: GenerativeRerankerModel,
        args: RerankerTrainingConfig,
        corpus_watch: CorpusWatch | None = None,
        **kwargs: Any,
    ) -> None:
        check_batches(args, group_size)
        self.group_size = group_size
        self.reranker = reranker
        self.corpus_watch = corpus_watch
        if args.joint_weight:
            attach_joint_predictor(reranker, kwargs.get("peft_config"))
        tokenizer = padded(reranker.processor.tokenizer)
        super().__init__(
            model=reranker.backbone,
            args=args,
            processing_class=tokenizer,
            data_collator=GroupCollator(tokenizer.pad_token_id, group_size, queries_alone=bool(args.joint_weight)),
            **kwargs,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As transformers', with a learning rate of its own for the student trained beside."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.args.joint_weight and self.args.joint_learning_rate is not None:
            joint = joint_parameters(self.reranker)
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in joint]
                group["params"] = [weight for weight in group["params"] if id(weight) not in joint]
                optimizer.add_param_group({**group, "params": own, "lr": self.args.joint_learning_rate})
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss; also counts how often the relevant document leads its group."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates the loss alone)")
        prefix_lengths = inputs["prefix_lengths"]
        pairs = len(prefix_lengths)  # rows behind them are queries alone
        positions = inputs["labels"].ne(-100).int().argmax(-1, keepdim=True).clamp(min=1) - 1
        weights = {"objective": 1.0, "joint": self.args.joint_weight, "document_lm": self.args.document_lm_weight}
        auxiliary = bool(weights["joint"] or weights["document_lm"])
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=positions,
            use_cache=False,
            output_hidden_states=auxiliary,
        )
        logits = output.logits[:pairs, 0]
        config = self.reranker.config
        log_odds = (
            (logits[:, config.true_token_id] - logits[:, config.false_token_id]).float().view(-1, self.group_size)
        )
        losses, metrics, tokens = {}, {"leads_group": _leads_group(log_odds)}, 0
        if self.args.objective == "listwise":
            losses["objective"] = listwise_cross_entropy(log_odds)
        else:
            answers = inputs["labels"].gather(1, positions + 1)[:pairs, 0]
            losses["objective"] = F.cross_entropy(logits.float(), answers)
        if auxiliary:
            states = output.hidden_states[-1]
            in_document = torch.arange(states.shape[1], device=states.device) < prefix_lengths[:, None]
            if weights["joint"]:
                scores = joint_scores(self.reranker, states, in_document, inputs["attention_mask"][pairs:])
                losses["joint"] = listwise_cross_entropy(scores)
                metrics["joint_leads_group"] = _leads_group(scores)
            if weights["document_lm"]:
                documents, tokens = inputs["input_ids"][:pairs], int(in_document[:, 1:].sum())
                losses["document_lm"] = document_lm_loss(self.reranker, states[:pairs], documents, in_document)
        counts = dict.fromkeys([*losses, *metrics], pairs) | {"document_lm": tokens}
        means = self.batch_means({**losses, **metrics}, counts)
        for name in metrics:
            self._metrics["train" if self.model.training else "eval"][name].append(means[name].item())
        check_finite("the teacher's loss", **{name: means[name].detach() for name in losses})
        return torch.stack([weights[name] * means[name] for name in losses]).sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As transformers'; also ranks the part of the corpus that is watched."""
        watch = self.corpus_watch
        found = {} if watch is None else on_main(lambda: watch.measure(self.reranker))
        for name, value in found.items():
            self._metrics["eval"][name].append(value)  # logged beside the loss
        prefix = kwargs.get("metric_key_prefix", "eval")
        return super().evaluate(*args, **kwargs) | {f"{prefix}_{name}": value for name, value in found.items()}


def _leads_group(scores: Tensor) -> Tensor:
    """How often the first document of a group, the relevant one, leads it: `(groups, c)` scores -> a scalar."""
    return (scores.argmax(-1) == 0).float().mean()
