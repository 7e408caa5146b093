"""Training of the teacher: TRL's supervised fine-tuning, with a loss on the answer token or over candidates."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from .. import GenerativeRerankerModel
from ..trainers.processes import on_main
from ..trainers.shared_trainer import (
    OF_NO_USE,
    SharedArguments,
    SharedTrainer,
    check_columns,
    check_division,
    fit_to_machine,
)
from .backbone import padded
from .losses import check_finite, document_lm_loss, listwise_cross_entropy
from .pairs import PairCollator
from .watch import CorpusWatch

OBJECTIVES = ("sft", "listwise")


@dataclass
class LanguageModelTrainingConfig(SharedArguments, SFTConfig):  # type: ignore[misc]  # bf16 may be None, as in TRL
    """TRL's `SFTConfig` for prompts that the processor has already tokenised and truncated."""

    activation_checkpointing: bool | None = field(
        default=True, metadata={"help": "Save memory: recompute activations in the backward pass."}
    )
    max_length: int | None = field(default=None, metadata=OF_NO_USE)  # the processor has cut document and query

    def __post_init__(self) -> None:
        fit_to_machine(self)
        super().__post_init__()
        if self.max_length is not None:
            raise ValueError(f"max_length is {self.max_length}; accepted: set max_document_length, max_query_length")
        self.dataset_kwargs = {"skip_prepare_dataset": True}
        check_columns(self)


@dataclass
class RerankerTrainingConfig(LanguageModelTrainingConfig):
    """Settings of `RerankerTrainer` beyond TRL's `SFTConfig`."""

    objective: str = field(
        default="sft",
        metadata={
            "help": "'sft': cross-entropy of the answer token of each pair. 'listwise': softmax over the log-odds of a "
            "query's candidates, which trains the ranking itself: worth 38 points of R@1 on household and 2 on ESConv, "
            "but the probabilities are not calibrated.",
            "choices": OBJECTIVES,
        },
    )
    document_lm_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of language modelling on the document part of the prompt, which trains the document's "
            "state; 0 for none. 0.1 is worth 1.1 points of the teacher's R@1 and 1.9 of the student's on "
            "household, nothing on ESConv."
        },
    )
    dev_groups: int = field(
        default=128,
        metadata={"help": "Groups of the dev split (a relevant document and its negatives) to evaluate on."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; accepted: {', '.join(OBJECTIVES)}")
        if not 0 <= self.document_lm_weight < math.inf:
            raise ValueError(f"document_lm_weight is {self.document_lm_weight}; accepted: 0 or more")


def check_batches(args: TrainingArguments, group_size: int) -> None:
    """Raises a ValueError if a batch, or a process's part of it, would split a relevant document and its negatives."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        if getattr(args, name) % group_size:
            raise ValueError(
                f"{name} is {getattr(args, name)}; accepted: a multiple of the group size {group_size} "
                "(a relevant document and its negatives)"
            )
    check_division(args, group_size)


class RerankerTrainer(SharedTrainer, SFTTrainer):  # type: ignore[misc]  # TRL types loss_is_scaled_for_ga as None
    """`SFTTrainer` over groups of pairs: one relevant document first, then its negatives.

    This trainer computes only the logits at the answer position. Without Triton, TRL's own loss computes them at every
    position. For `objective="sft"` the value is the same (tested).

    Args:
        group_size: pairs per group; `per_device_train_batch_size` must be a multiple of it.
        reranker: the teacher; its backbone is trained.
        args: the settings.
        corpus_watch: queries and documents to rank at every evaluation, for `eval_corpus_success@1`, ...; a relevant
            document that leads its small group can still rank low in the corpus.
        kwargs: those of `SFTTrainer`.

    Raises:
        ValueError: the batch size splits groups, or a loss is not finite.
    """

    args: RerankerTrainingConfig

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
        self._measured: dict[str, list[float]] = {}  # since the last log; those of an evaluation begin with "eval_"
        tokenizer = padded(reranker.processor.tokenizer)
        super().__init__(
            model=reranker.backbone,
            args=args,
            processing_class=tokenizer,
            data_collator=PairCollator(tokenizer.pad_token_id),
            **kwargs,
        )

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss; also counts how often the relevant document leads its group."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates the loss alone)")
        input_ids, labels, prefix_lengths = inputs["input_ids"], inputs["labels"], inputs["prefix_lengths"]
        answers = labels.ne(-100).int().argmax(-1, keepdim=True)  # (pairs, 1), their positions
        lm_weight = self.args.document_lm_weight
        output = model(
            input_ids=input_ids,
            attention_mask=inputs["attention_mask"],
            logits_to_keep=answers - 1,
            use_cache=False,
            output_hidden_states=lm_weight > 0,
        )
        logits = output.logits[:, 0].float()  # (pairs, vocabulary)
        config = self.reranker.config
        log_odds = (logits[:, config.true_token_id] - logits[:, config.false_token_id]).view(-1, self.group_size)
        if self.args.objective == "listwise":
            losses = {"objective": listwise_cross_entropy(log_odds)}
        else:
            losses = {"objective": F.cross_entropy(logits, labels.gather(1, answers)[:, 0])}
        counts = {"objective": len(labels), "leads_group": len(labels)}
        if lm_weight > 0:
            in_document = torch.arange(labels.shape[1], device=labels.device) < prefix_lengths[:, None]
            losses["document_lm"] = document_lm_loss(self.reranker, output.hidden_states[-1], input_ids, in_document)
            counts["document_lm"] = int(in_document[:, 1:].sum())
        leads_group = (log_odds.argmax(-1) == 0).float().mean()
        means = self.batch_means({**losses, "leads_group": leads_group}, counts)
        check_finite("the teacher's loss", **{name: means[name].detach() for name in losses})
        measured = "leads_group" if self.model.training else "eval_leads_group"
        self._measured.setdefault(measured, []).append(means["leads_group"].item())
        loss = means["objective"]
        return loss + lm_weight * means["document_lm"] if lm_weight > 0 else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in transformers; also ranks the queries and documents of `corpus_watch`, in the precision of training."""
        watch = self.corpus_watch
        with self.accelerator.autocast():
            found = {} if watch is None else on_main(lambda: watch.measure(self.reranker))
        for name, value in found.items():
            self._measured[f"eval_{name}"] = [value]  # logged beside the loss
        prefix = kwargs.get("metric_key_prefix", "eval")
        return super().evaluate(*args, **kwargs) | {f"{prefix}_{name}": value for name, value in found.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in transformers, with the means of the measurements since the last log of training or of evaluation."""
        evaluating = not self.model.training
        for name in list(self._measured):
            if name.startswith("eval_") == evaluating:
                values = self._measured.pop(name)
                logs[name] = sum(values) / len(values)
        super().log(logs, start_time)
