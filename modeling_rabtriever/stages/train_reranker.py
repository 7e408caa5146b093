"""Stage 1: trains the teacher, a generative reranker.

Usage:
    python -m training.train_reranker --config household
    python -m training.train_reranker --config esconv --data path/to/esconv --max_steps 100
    python -m training.train_reranker --config qwen3-0.6b --data path/to/folder --dry_run true

Starts from --model_name_or_path, or else from <output_dir>/backbone/model, which training.pretrain wrote. Writes
<output_dir>/teacher/model, a folder AutoModel loads. Interrupted, it resumes from its last checkpoint.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import Trainer
from trl import ModelConfig, get_peft_config

from .. import GenerativeRerankerConfig, GenerativeRerankerModel
from ..files import write_json, writing
from ..reranking.backbone import BackboneArguments, PromptArguments, build_reranker, check_student
from ..reranking.document_states import detach_joint_predictor
from ..reranking.dry_run import plan, report
from ..reranking.pairs import NegativeArguments, draw_groups, negative_count, pair_dataset, take_groups
from ..reranking.reranker_trainer import RerankerTrainer, RerankerTrainingConfig, check_batches
from ..reranking.watch import DEV, WATCHED, watch_nothing, watched_corpus
from ..tasks.beir import RetrievalTask, Split
from ..tasks.named import load_task
from ..trainers.processes import on_main, say
from ..trainers.shared_trainer import check_division
from ..trainers.stage_folder import StageFolder, earlier_model, model_digest
from .checks import NOTHING, Earlier, check_language_model, check_positive, check_splits, check_training
from .recipe import parse_stage


@dataclass
class RunArguments:
    """What all stages share."""

    data: str = field(
        metadata={
            "help": "The task: a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/<split>.tsv), "
            "hub:<data set> in that layout, or a name of training/tasks/named.yaml.",
            "aliases": ["--task"],
        }
    )
    train_split: str = field(default="train", metadata={"help": "Split the models are trained on."})
    dev_split: str | None = field(
        default=None,
        metadata={"help": "Split watched while training; default: dev, and none if the task has no such split."},
    )
    skip_bad: bool = field(
        default=False,
        metadata={
            "help": "Leave out lines that are no document or query, and judgements that name an absent document or "
            "query, and say how many, instead of stopping."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished or started stage whose settings were others."}
    )

    def splits(self, task: RetrievalTask) -> tuple[Split, Split | None]:
        """The split to train on and the one to watch, if there is one.

        Raises:
            ValueError: the task lacks the first, or a second that was asked for by name.
        """
        named = {"train_split": self.train_split, "dev_split": self.dev_split}
        check_splits(task, **{option: name for option, name in named.items() if name is not None})
        return task.splits[self.train_split], task.splits.get(self.dev_split or DEV)


@dataclass
class TeacherArguments:
    """How the teacher's progress is measured."""

    dev_groups: int = field(
        default=128, metadata={"help": "Groups of the dev split (a relevant document and negatives) watched."}
    )


@dataclass
class DryRunArguments:
    """Whether to train at all."""

    dry_run: bool = field(
        default=False,
        metadata={"help": "Train nothing: print parameters, memory, steps and FLOPs, worked out without the weights."},
    )


@dataclass
class LoraArguments:
    """Low-rank adapters instead of full fine-tuning; the saved teacher has them merged into its weights."""

    use_peft: bool = field(default=False, metadata={"help": "Train LoRA adapters instead of all weights."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters, divided by their rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names of the layers with adapters; default: all linear layers but the head."}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; accepted: 0 to 1, less than 1")

    def peft_config(self) -> Any:
        """As `trl.get_peft_config` makes it; `None` without LoRA."""
        modules = self.lora_target_modules or ["all-linear"]
        return get_peft_config(ModelConfig(**{**vars(self), "lora_target_modules": modules}))


ARGUMENTS = (
    RunArguments,
    BackboneArguments,
    PromptArguments,
    TeacherArguments,
    NegativeArguments,
    LoraArguments,
    DryRunArguments,
    RerankerTrainingConfig,
)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained teacher (with `dry_run`, where it would go)."""
    arguments = parse_stage("train_reranker", ARGUMENTS, argv)
    run, backbone, prompt, watch, negatives, lora, dry, config = arguments
    prompt = prompt.for_task(run.data)
    backbone.model_name_or_path = earlier_model(
        backbone.model_name_or_path,
        config.output_dir,
        "backbone",
        "run training.pretrain first, or pass --model_name_or_path",
    )
    if dry.dry_run:
        say(report(plan(backbone, prompt, negatives, lora, config, run)))
        return Path(config.output_dir) / "teacher" / "model"
    task = load_task(run.data, run.skip_bad)
    run.splits(task)
    stage = StageFolder(
        Path(config.output_dir) / "teacher",
        (run, backbone, prompt, watch, negatives, lora, config),
        {"task": task.fingerprint(), "backbone": model_digest(backbone.model_name_or_path)},
        run.overwrite,
    )
    if stage.done:
        say(f"teacher: done before, in {stage.model}")
        return stage.model
    check(arguments, task)
    reranker = build_reranker(
        backbone, prompt, tokenizer_texts(task, run, prompt), config.seed, config.trust_remote_code
    )
    config.output_dir = str(stage.checkpoints)
    trainer = make_trainer(reranker, task, run, watch, negatives, config, lora.peft_config())
    train_and_save(reranker, trainer, stage, lora, relevant_share=1 / trainer.group_size)
    if trainer.corpus_watch is not None:
        say(trainer.corpus_watch.line(trainer.state.log_history))
    return stage.model


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> Any:
    """What can be known before the first step, also of a stage that comes before.

    Args:
        arguments: instances of `ARGUMENTS`.
        task: what is trained on.
        earlier: the stages of the same call that come before.

    Returns:
        The configuration of the language model this stage will leave.

    Raises:
        ValueError: a split, a file or a model is missing, or a setting cannot be used.
    """
    run, backbone, prompt, watch, negatives, lora, _, config = arguments
    train, dev = run.splits(task)
    check_training(config, "loss", *WATCHED)
    prompt.for_task(run.data)
    check_positive(dev_groups=watch.dev_groups, lora_r=lora.lora_r, lora_alpha=lora.lora_alpha)
    size = group_size(task, train, dev, negatives)
    check_batches(config, size)
    check_division(config, size)
    if backbone.model_name_or_path is None and "pretrain" in earlier:
        return earlier["pretrain"]
    remedy = "run training.pretrain first, or pass --model_name_or_path"
    source = earlier_model(backbone.model_name_or_path, config.output_dir, "backbone", remedy)
    found = check_language_model(replace(backbone, model_name_or_path=source), config, config.trust_remote_code, lora)
    check_student(GenerativeRerankerConfig(text_config=found, true_token_id=0, false_token_id=1))
    return found


def group_size(task: RetrievalTask, train: Split, dev: Split | None, negatives: NegativeArguments) -> int:
    """A relevant document and its negatives: as many as both splits have for every query."""
    return 1 + min(negative_count(task, split, negatives) for split in (train, dev) if split is not None)


def train_and_save(
    reranker: GenerativeRerankerModel, trainer: Trainer, stage: StageFolder, lora: LoraArguments, **result: Any
) -> None:
    """Trains the reranker's backbone, from the stage's last checkpoint on, and finishes the stage."""
    config = trainer.args
    stage.start()
    trainer.train(resume_from_checkpoint=stage.last_checkpoint(config.resume_from_checkpoint))
    if lora.use_peft:
        reranker.backbone = trainer.model.merge_and_unload()
    detach_joint_predictor(reranker)

    def save() -> None:
        with writing(stage.model):
            reranker.save_pretrained(stage.model)
        write_json(stage.log, trainer.state.log_history)

    on_main(save)
    pairs = trainer.state.global_step * trainer.get_total_train_batch_size(config)
    stage.finish(pairs=pairs, parameters=reranker.num_parameters(), **result)


def make_trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    run: RunArguments,
    watch: TeacherArguments,
    negatives: NegativeArguments,
    config: RerankerTrainingConfig,
    peft_config: Any = None,
) -> RerankerTrainer:
    """The trainer with its data: as many passes over the training split as the run takes, drawn in advance."""
    train, dev = run.splits(task)
    size = group_size(task, train, dev, negatives)
    rows_per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    groups_per_step = max(rows_per_step // size, 1)
    if config.max_steps <= 0:
        config.max_steps = math.ceil(config.num_train_epochs * train.judgements / groups_per_step)
    groups = take_groups(draw_groups(task, train, negatives, config.seed, size - 1), config.max_steps * groups_per_step)
    config.train_sampling_strategy = "sequential"  # the draw is shuffled; the groups must stay together
    processor, watched = reranker.processor, None
    if dev is None:
        watch_nothing(task, config)
    else:
        drawn = take_groups(draw_groups(task, dev, negatives, config.seed, size - 1), watch.dev_groups)
        watched = pair_dataset(drawn, dev, task.corpus, processor)
    return RerankerTrainer(
        group_size=size,
        reranker=reranker,
        args=config,
        corpus_watch=None if dev is None else watched_corpus(task, dev),
        train_dataset=pair_dataset(groups, train, task.corpus, processor),
        eval_dataset=watched,
        peft_config=peft_config,
    )


def tokenizer_texts(task: RetrievalTask, run: RunArguments, prompt: PromptArguments) -> Iterator[str]:
    """What a tokenizer from scratch learns from: never the evaluation queries."""
    # The template is repeated so that its words, which stand in every prompt, become single tokens.
    yield from task.corpus
    yield from task.split(run.train_split).queries
    yield from [prompt.document_template + prompt.query_template + prompt.instruction] * 100
