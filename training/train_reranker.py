"""Stage 1: trains the teacher, a generative reranker.

Usage:
    python -m training.train_reranker --config training/recipes/household.yaml
    python -m training.train_reranker --config training/recipes/esconv.yaml --data path/to/esconv --max_steps 100
    python -m training.train_reranker --config training/recipes/qwen3-0.6b.yaml --data path/to/folder --dry_run true

Starts from --model_name_or_path, or else from <output_dir>/backbone/model, which training.pretrain wrote. Writes
<output_dir>/teacher/model, a folder AutoModel loads. Interrupted, it resumes from its last checkpoint.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import Trainer
from trl import ModelConfig, get_peft_config

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.files import write_json, writing
from training.backbone import BackboneArguments, PromptArguments, build_reranker
from training.document_states import detach_joint_predictor
from training.dry_run import plan, report
from training.pairs import NegativeArguments, draw_groups, negative_count, pair_dataset, take_groups
from training.processes import on_main, say
from training.recipe import parse_stage
from training.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from training.stages import StageFolder, earlier_model, model_digest
from training.tasks.beir import RetrievalTask
from training.tasks.named import load_task


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
    dev_split: str = field(default="dev", metadata={"help": "Split watched while training."})
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished or started stage whose settings were others."}
    )


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
    run, backbone, prompt, watch, negatives, lora, dry, config = parse_stage("train_reranker", ARGUMENTS, argv)
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
    task = load_task(run.data)
    stage = StageFolder(
        Path(config.output_dir) / "teacher",
        (run, backbone, prompt, watch, negatives, lora, config),
        {"task": task.fingerprint(), "backbone": model_digest(backbone.model_name_or_path)},
        run.overwrite,
    )
    if stage.done:
        say(f"teacher: done before, in {stage.model}")
        return stage.model
    reranker = build_reranker(
        backbone, prompt, tokenizer_texts(task, run, prompt), config.seed, config.trust_remote_code
    )
    config.output_dir = str(stage.checkpoints)
    trainer = make_trainer(reranker, task, run, watch, negatives, config, lora.peft_config())
    train_and_save(reranker, trainer, stage, lora, relevant_share=1 / trainer.group_size)
    return stage.model


def train_and_save(
    reranker: GenerativeRerankerModel, trainer: Trainer, stage: StageFolder, lora: LoraArguments, **result: Any
) -> None:
    """Trains the reranker's backbone, from the stage's last checkpoint on, and finishes the stage."""
    config = trainer.args
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
    train, dev = task.split(run.train_split), task.split(run.dev_split)
    group_size = 1 + negative_count(task, train, negatives)
    rows_per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    groups_per_step = max(rows_per_step // group_size, 1)
    if config.max_steps <= 0:
        config.max_steps = math.ceil(config.num_train_epochs * train.judgements / groups_per_step)
    groups = take_groups(draw_groups(task, train, negatives, config.seed), config.max_steps * groups_per_step)
    watched = take_groups(draw_groups(task, dev, negatives, config.seed), watch.dev_groups)
    config.train_sampling_strategy = "sequential"  # the draw is shuffled; the groups must stay together
    processor = reranker.processor
    return RerankerTrainer(
        group_size=group_size,
        reranker=reranker,
        args=config,
        train_dataset=pair_dataset(groups, train, task.corpus, processor),
        eval_dataset=pair_dataset(watched, dev, task.corpus, processor),
        peft_config=peft_config,
    )


def tokenizer_texts(task: RetrievalTask, run: RunArguments, prompt: PromptArguments) -> Iterator[str]:
    """What a tokenizer from scratch learns from: never the evaluation queries."""
    # The template is repeated so that its words, which stand in every prompt, become single tokens.
    yield from task.corpus
    yield from task.split(run.train_split).queries
    yield from [prompt.document_template + prompt.query_template + prompt.instruction] * 100


if __name__ == "__main__":
    main()
