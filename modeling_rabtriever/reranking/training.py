"""Training a teacher from Python: a task and settings in, a trained reranker out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import ModelConfig, get_peft_config

from .. import GenerativeRerankerModel
from ..progress import lines_in_logs
from ..tasks.beir import DEV, RetrievalTask, Split
from ..trainers.checkpoints import configured_checkpoint
from ..trainers.run_lock import only_run
from .backbone import BackboneArguments, build_reranker
from .pairs import NegativeArguments, draw_groups, negative_count, pair_dataset
from .prompts import PromptArguments
from .reranker_trainer import RerankerTrainer, RerankerTrainingConfig, check_batches
from .watch import CorpusWatch, say_cost, watch_nothing, watched_corpus


@dataclass
class LoraArguments:
    """Low-rank adapters instead of full fine-tuning; they are merged into the weights of the saved teacher."""

    use_peft: bool = field(default=False, metadata={"help": "Train LoRA adapters instead of all weights."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters, divided by their rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Layers with adapters; default: all linear layers except the head."},
    )

    def __post_init__(self) -> None:
        for name in ("lora_r", "lora_alpha"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; accepted: at least 0 and less than 1")

    def peft_config(self, width: int) -> Any:
        """The configuration from `trl.get_peft_config` for a backbone of this width; `None` without LoRA.

        Raises:
            ValueError: the rank is above the width, where adapters have more numbers than the weights.
        """
        if self.use_peft and self.lora_r > width:
            raise ValueError(f"lora_r is {self.lora_r}; accepted: 1 to {width}, the width of the backbone")
        modules = self.lora_target_modules or ["all-linear"]
        return get_peft_config(ModelConfig(**{**vars(self), "lora_target_modules": modules}))


@lines_in_logs()
def train_reranker(
    task: RetrievalTask,
    config: RerankerTrainingConfig,
    backbone: BackboneArguments,
    prompt: PromptArguments | None = None,
    negatives: NegativeArguments | None = None,
    lora: LoraArguments | None = None,
    train: Split | None = None,
    dev: Split | None = None,
) -> GenerativeRerankerModel:
    """Trains a teacher, as the stage `train_reranker` does, without the folders of a run.

    Args:
        task: corpus and splits.
        config: how to train. Checkpoints go to `config.output_dir`; if `config.resume_from_checkpoint` is true, the run
            resumes from the last checkpoint there.
        backbone: the language model to start from, pretrained or a configuration (`recipes.backbone_path`).
        prompt: the prompt; `None` means that of the named task, or the paper's.
        negatives: the negatives of a relevant document; `None` means the defaults.
        lora: adapters; `None` trains all weights.
        train: queries with relevance labels; `None` means the task's train split.
        dev: queries with relevance labels to evaluate on during training; `None` means the task's dev split, if it has
            one.

    Returns:
        The teacher, in evaluation mode, with its processor; adapters are merged into its weights.

    Raises:
        ValueError: the backbone or the prompt cannot be used, or a setting does not fit the task.

    Examples:
        >>> from modeling_rabtriever.reranking import BackboneArguments, PromptArguments, RerankerTrainingConfig
        >>> from modeling_rabtriever.reranking import train_reranker
        >>> from modeling_rabtriever.tasks import load_beir
        >>> task = load_beir("path/to/folder")
        >>> config = RerankerTrainingConfig("runs/teacher", objective="listwise", max_steps=600)
        >>> prompt = PromptArguments(true_answer="yes", false_answer="no")  # one token each
        >>> teacher = train_reranker(task, config, BackboneArguments("Qwen/Qwen3-0.6B"), prompt)
        >>> teacher.save_pretrained("runs/teacher/model")
    """
    train = task.split("train") if train is None else train
    dev = task.splits.get(DEV) if dev is None else dev
    prompt = (prompt or PromptArguments()).for_task(task.name)
    negatives, lora = negatives or NegativeArguments(), lora or LoraArguments()
    size = group_size(task, train, dev, negatives)
    check_batches(config, size)
    texts = tokenizer_texts(task, train, prompt)
    with only_run(Path(str(config.output_dir))):
        reranker = build_reranker(backbone, prompt, texts, config.seed, config.trust_remote_code)
        adapters = lora.peft_config(reranker.config.text_config.hidden_size)
        trainer = make_trainer(reranker, task, train, dev, negatives, config, adapters)
        trainer.train(resume_from_checkpoint=configured_checkpoint(config))
    return finished(reranker, trainer, lora)


def group_size(task: RetrievalTask, train: Split, dev: Split | None, negatives: NegativeArguments) -> int:
    """Documents per group, the relevant one and its negatives: as many as both splits have for every query."""
    return 1 + min(negative_count(task, split, negatives) for split in (train, dev) if split is not None)


def make_trainer(
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    train: Split,
    dev: Split | None,
    negatives: NegativeArguments,
    config: RerankerTrainingConfig,
    peft_config: Any = None,
) -> RerankerTrainer:
    """The trainer with its data: all groups of the run, drawn in advance.

    Without a dev split there are no evaluations during training.
    """
    size = group_size(task, train, dev, negatives)
    rows_per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    groups_per_step = max(rows_per_step // size, 1)
    if config.max_steps <= 0:
        config.max_steps = math.ceil(config.num_train_epochs * train.judgements / groups_per_step)
    drawn = draw_groups(task, train, negatives, config.seed, size - 1)
    groups = list(islice(drawn, config.max_steps * groups_per_step))
    config.train_sampling_strategy = "sequential"  # the groups are shuffled already, and must stay together
    processor = reranker.processor
    corpus_watch: CorpusWatch | None = None
    watched: Dataset | None = None
    if dev is None:
        watch_nothing(task, config)
    else:
        corpus_watch = watched_corpus(task, dev)
        say_cost(corpus_watch, config)
        drawn = draw_groups(task, dev, negatives, config.seed, size - 1)
        watched = pair_dataset(list(islice(drawn, config.dev_groups)), dev, task.corpus, processor)
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
    """The trained teacher as it is saved, with adapters merged into its weights."""
    if lora.use_peft:
        reranker.backbone = trainer.model.merge_and_unload()
    return reranker.eval()


def tokenizer_texts(task: RetrievalTask, train: Split, prompt: PromptArguments) -> Iterator[str]:
    """The training texts of a tokenizer from scratch; never evaluation queries."""
    # The template is repeated so that its words, which are in every prompt, become single tokens.
    yield from task.corpus
    yield from train.queries
    yield from [prompt.document_template + prompt.query_template + prompt.instruction] * 100
