"""Stage 1b, optional: direct preference optimisation of a trained teacher, with TRL's `DPOTrainer`.

Usage:
    python -m training.train_reranker_dpo --config esconv --data path/to/esconv
    python -m training.distill --config esconv --teacher runs/esconv/teacher_dpo/model ...

The prompt of a pair is the teacher's; the right answer is chosen, the wrong one rejected; the reference is the teacher
as it was. Reads <output_dir>/teacher/model unless --teacher says otherwise; writes <output_dir>/teacher_dpo/model.
Interrupted, it resumes from its last checkpoint.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from torch import Tensor, nn
from trl import DPOConfig, DPOTrainer

from ..loading import load_model
from ..machine import fit_to_machine
from ..reranking.backbone import padded
from ..reranking.pairs import NegativeArguments, draw_groups, negative_count, preference_dataset, take_groups
from ..reranking.watch import watch_nothing
from ..tasks.named import load_task
from ..trainers.processes import on_main, process_count, say
from ..trainers.shared_trainer import BatchArguments, SharedTrainer
from ..trainers.stage_folder import StageFolder, earlier_model, model_digest
from .checks import check_positive, check_teacher, check_training
from .recipe import parse_stage
from .train_reranker import LoraArguments, RunArguments, TeacherArguments, train_and_save


@dataclass
class PriorArguments:
    """The teacher to start from."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; default: <output_dir>/teacher/model."}
    )


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


ARGUMENTS = (RunArguments, PriorArguments, TeacherArguments, NegativeArguments, LoraArguments, RerankerDPOConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained teacher."""
    run, prior, watch, negatives, lora, config = parse_stage("train_reranker_dpo", ARGUMENTS, argv)
    task = load_task(run.data, run.skip_bad)
    train, dev = run.splits(task)
    check_training(config, "loss", "rewards/accuracies")
    check_positive(dev_groups=watch.dev_groups, lora_r=lora.lora_r, lora_alpha=lora.lora_alpha)
    path = earlier_model(
        prior.teacher, config.output_dir, "teacher", "run training.train_reranker first, or pass --teacher"
    )
    check_teacher(path, config.trust_remote_code)
    inputs = {"task": task.fingerprint(), "teacher": model_digest(path)}
    settings = (run, prior, watch, negatives, lora, config)
    stage = StageFolder(Path(config.output_dir) / "teacher_dpo", settings, inputs, run.overwrite)
    if stage.done:
        say(f"teacher (DPO): done before, in {stage.model}")
        return stage.model
    reranker = load_model(path, trust_remote_code=config.trust_remote_code)
    rows_per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    groups_per_step = rows_per_step / (1 + negative_count(task, train, negatives))
    # The reference reads every pair of the data before the first step: no more than the run will use.
    count = math.ceil(config.max_steps * groups_per_step) if config.max_steps > 0 else train.judgements
    groups = take_groups(draw_groups(task, train, negatives, config.seed), min(count, train.judgements))
    rows, watched = preference_dataset(groups, train, task.corpus, reranker.processor), None
    if dev is None:
        watch_nothing(task, config)
    else:
        drawn = take_groups(draw_groups(task, dev, negatives, config.seed), watch.dev_groups)
        watched = preference_dataset(drawn, dev, task.corpus, reranker.processor)
    config.output_dir = str(stage.checkpoints)
    trainer = RerankerDPOTrainer(
        model=reranker.backbone,
        args=config,
        train_dataset=shared(rows, stage, "train"),
        eval_dataset=None if watched is None else shared(watched, stage, "dev"),
        processing_class=padded(reranker.processor.tokenizer),
        peft_config=lora.peft_config(),
    )
    train_and_save(reranker, trainer, stage, lora)
    return stage.model


def shared(rows: Dataset, stage: StageFolder, name: str) -> Dataset:
    """The same rows in a file that all processes read: beside it TRL keeps what the reference says of them."""
    if process_count() == 1:
        return rows
    folder = stage.checkpoints / f"pairs-{name}"

    def keep() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        rows.save_to_disk(folder)

    on_main(keep)
    return load_from_disk(folder)
