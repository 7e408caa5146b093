"""Training a teacher from Python: a task and settings in, a trained reranker out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from trl import ModelConfig, get_peft_config

from .. import GenerativeRerankerModel
from ..tasks.beir import RetrievalTask, Split
from ..trainers.checkpoints import configured_checkpoint
from ..trainers.shared_trainer import check_division
from .backbone import BackboneArguments, PromptArguments, build_reranker
from .pairs import NegativeArguments, draw_groups, negative_count, pair_dataset, take_groups
from .reranker_trainer import RerankerTrainer, RerankerTrainingConfig, check_batches
from .watch import DEV, CorpusWatch, say_cost, watch_nothing, watched_corpus


@dataclass
class TeacherArguments:
    """How the teacher's progress is measured."""

    dev_groups: int = field(
        default=128,
        metadata={"help": "How many groups of the dev split (a relevant document and its negatives) are watched."},
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


def train_reranker(
    task: RetrievalTask,
    config: RerankerTrainingConfig,
    backbone: BackboneArguments,
    prompt: PromptArguments | None = None,
    negatives: NegativeArguments | None = None,
    lora: LoraArguments | None = None,
    train: Split | None = None,
    dev: Split | None = None,
    watch: TeacherArguments | None = None,
) -> GenerativeRerankerModel:
    """Trains a teacher; what the stage `train_reranker` does, without the folders of a run.

    Args:
        task: corpus and splits.
        config: how to train. Checkpoints go to `config.output_dir`; a run that was killed goes on from the last
            checkpoint there if `config.resume_from_checkpoint` is true.
        backbone: the language model to start from, pretrained or a configuration (`recipes.backbone_path`).
        prompt: what the model reads; `None` means the wordings of the task's name, or the paper's.
        negatives: which documents stand against a relevant one; `None` means the defaults.
        lora: adapters; `None` trains all weights.
        train: queries with relevance labels; `None` means the task's split of that name.
        dev: queries with relevance labels that are watched; `None` means the task's split of that name, if it has one.
        watch: how much of `dev` is watched.

    Returns:
        The teacher, in evaluation mode, with its processor; adapters are merged into its weights.

    Raises:
        ValueError: the backbone or the prompt cannot be used, or a setting does not fit the task.

    Example:
        >>> task = load_beir("path/to/folder")  # doctest: +SKIP
        >>> config = RerankerTrainingConfig("runs/mine", objective="listwise", max_steps=600)  # doctest: +SKIP
        >>> prompt = PromptArguments(true_answer="yes", false_answer="no")  # doctest: +SKIP
        >>> teacher = train_reranker(task, config, BackboneArguments("Qwen/Qwen3-0.6B"), prompt)  # doctest: +SKIP
        >>> teacher.save_pretrained("runs/mine/model")  # doctest: +SKIP
    """
    train = task.split("train") if train is None else train
    dev = task.splits.get(DEV) if dev is None else dev
    prompt = (prompt or PromptArguments()).for_task(task.name)
    negatives, lora, watch = negatives or NegativeArguments(), lora or LoraArguments(), watch or TeacherArguments()
    size = group_size(task, train, dev, negatives)
    check_batches(config, size)
    check_division(config, size)
    texts = tokenizer_texts(task, train, prompt)
    reranker = build_reranker(backbone, prompt, texts, config.seed, config.trust_remote_code)
    trainer = make_trainer(reranker, task, train, dev, negatives, config, watch, lora.peft_config())
    trainer.train(resume_from_checkpoint=configured_checkpoint(config))
    return finished(reranker, trainer, lora)


def group_size(task: RetrievalTask, train: Split, dev: Split | None, negatives: NegativeArguments) -> int:
    """A relevant document and its negatives: as many as both splits have for every query."""
    return 1 + min(negative_count(task, split, negatives) for split in (train, dev) if split is not None)


def make_trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    train: Split,
    dev: Split | None,
    negatives: NegativeArguments,
    config: RerankerTrainingConfig,
    watch: TeacherArguments,
    peft_config: Any = None,
) -> RerankerTrainer:
    """The trainer with its data: as many passes over the training split as the run takes, drawn in advance.

    Without a dev split nothing is watched.
    """
    size = group_size(task, train, dev, negatives)
    rows_per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    groups_per_step = max(rows_per_step // size, 1)
    if config.max_steps <= 0:
        config.max_steps = math.ceil(config.num_train_epochs * train.judgements / groups_per_step)
    groups = take_groups(draw_groups(task, train, negatives, config.seed, size - 1), config.max_steps * groups_per_step)
    config.train_sampling_strategy = "sequential"  # the draw is shuffled; the groups must stay together
    processor = reranker.processor
    corpus_watch: CorpusWatch | None = None
    watched: Dataset | None = None
    if dev is None:
        watch_nothing(task, config)
    else:
        corpus_watch = watched_corpus(task, dev)
        say_cost(corpus_watch, config)
        drawn = take_groups(draw_groups(task, dev, negatives, config.seed, size - 1), watch.dev_groups)
        watched = pair_dataset(drawn, dev, task.corpus, processor)
    return RerankerTrainer(
        group_size=size,
        reranker=reranker,
        args=config,
        corpus_watch=corpus_watch,
        train_dataset=pair_dataset(groups, train, task.corpus, processor),
        eval_dataset=watched,
        peft_config=peft_config,
    )


def finished(reranker: GenerativeRerankerModel, trainer: Any, lora: LoraArguments) -> GenerativeRerankerModel:
    """The trained teacher as it is saved: adapters are part of its weights."""
    if lora.use_peft:
        reranker.backbone = trainer.model.merge_and_unload()
    return reranker.eval()


def tokenizer_texts(task: RetrievalTask, train: Split, prompt: PromptArguments) -> Iterator[str]:
    """What a tokenizer from scratch learns from: never the evaluation queries."""
    # The template is repeated so that its words, which stand in every prompt, become single tokens.
    yield from task.corpus
    yield from train.queries
    yield from [prompt.document_template + prompt.query_template + prompt.instruction] * 100
