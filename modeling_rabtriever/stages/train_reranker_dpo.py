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

from datasets import Dataset, load_from_disk

from ..loading import load_model
from ..reranking.backbone import padded
from ..reranking.dpo import RerankerDPOConfig, RerankerDPOTrainer
from ..reranking.pairs import NegativeArguments, draw_groups, negative_count, preference_dataset, take_groups
from ..reranking.training import LoraArguments, TeacherArguments
from ..reranking.watch import watch_nothing
from ..tasks.named import load_task
from ..trainers.processes import on_main, process_count, say
from ..trainers.stage_folder import StageFolder, earlier_model, model_digest
from . import program
from .checks import check_positive, check_teacher, check_training
from .recipe import parse_stage
from .run import RunArguments
from .train_reranker import train_and_save


@dataclass
class PriorArguments:
    """The teacher to start from."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; default: <output_dir>/teacher/model."}
    )


ARGUMENTS = (RunArguments, PriorArguments, TeacherArguments, NegativeArguments, LoraArguments, RerankerDPOConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained teacher."""
    run, prior, watch, negatives, lora, config = parse_stage("train_reranker_dpo", ARGUMENTS, argv)
    task = load_task(run.data, run.skip_bad)
    train, dev = run.splits(task)
    check_training(config, "loss", "rewards/accuracies")
    check_positive(dev_groups=watch.dev_groups, lora_r=lora.lora_r, lora_alpha=lora.lora_alpha)
    path = earlier_model(
        prior.teacher, config.output_dir, "teacher", f"run {program('train_reranker')} first, or pass --teacher"
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
