"""Stage 0, optional: a backbone from scratch learns the task's language before it learns to judge.

Usage:
    python -m training.pretrain --config esconv --data path/to/esconv

Language modelling on the training split: each query behind a document relevant for it, as the teacher will read them.
Writes <output_dir>/backbone/model, a plain causal language model with its tokenizer, from which training.train_reranker
starts. Interrupted, it resumes from its last checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from trl import SFTTrainer

from .. import RabtrieverProcessor
from ..files import write_json, writing
from ..reranking.backbone import BackboneArguments, PromptArguments, build_reranker, padded
from ..reranking.reranker_trainer import LanguageModelTrainingConfig
from ..reranking.watch import watch_nothing
from ..tasks.beir import RetrievalTask, Split
from ..tasks.named import load_task
from ..trainers.processes import on_main, say
from ..trainers.shared_trainer import SharedTrainer
from ..trainers.stage_folder import StageFolder, model_digest
from .checks import NOTHING, Earlier, check_language_model, check_training
from .recipe import parse_stage
from .train_reranker import RunArguments, tokenizer_texts

ARGUMENTS = (RunArguments, BackboneArguments, PromptArguments, LanguageModelTrainingConfig)


class PretrainingTrainer(SharedTrainer, SFTTrainer):
    """`SFTTrainer` with the model's own loss over all tokens.

    TRL's also measures the entropy at every token, which without Triton takes several times longer than the passes of a
    small model.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean over the batch

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy of the next token."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates the loss alone)")
        means, tokens = {"loss": model(**inputs, use_cache=False).loss}, inputs["labels"][:, 1:].ne(-100).sum().item()
        return self.batch_means(means, {"loss": tokens})["loss"]


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained backbone."""
    arguments = parse_stage("pretrain", ARGUMENTS, argv)
    run, backbone, prompt, config = arguments
    prompt = prompt.for_task(run.data)
    task = load_task(run.data, run.skip_bad)
    train, dev = run.splits(task)
    inputs = {"task": task.fingerprint(), "backbone": model_digest(str(backbone.model_name_or_path))}
    stage = StageFolder(Path(config.output_dir) / "backbone", (run, backbone, prompt, config), inputs, run.overwrite)
    if stage.done:
        say(f"backbone: done before, in {stage.model}")
        return stage.model
    check(arguments, task)
    texts = tokenizer_texts(task, run, prompt)
    reranker = build_reranker(backbone, prompt, texts, config.seed, config.trust_remote_code)
    config.output_dir = str(stage.checkpoints)
    if dev is None:
        watch_nothing(task, config)
    trainer = PretrainingTrainer(
        model=reranker.backbone,
        args=config,
        train_dataset=prompt_dataset(task, train, reranker.processor),
        eval_dataset=None if dev is None else prompt_dataset(task, dev, reranker.processor),
        processing_class=padded(reranker.processor.tokenizer),
    )
    stage.start()
    trainer.train(resume_from_checkpoint=stage.last_checkpoint(config.resume_from_checkpoint))

    def save() -> None:
        with writing(stage.model):
            reranker.backbone.save_pretrained(stage.model)
            reranker.processor.tokenizer.save_pretrained(stage.model)
        write_json(stage.log, trainer.state.log_history)

    on_main(save)
    stage.finish(parameters=reranker.num_parameters())
    return stage.model


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> Any:  # noqa: ARG001
    """As `training.train_reranker.check`."""
    run, backbone, prompt, config = arguments
    run.splits(task)
    check_training(config, "loss")
    prompt.for_task(run.data)
    return check_language_model(backbone, config, config.trust_remote_code)


def prompt_dataset(task: RetrievalTask, split: Split, processor: RabtrieverProcessor) -> Dataset:
    """Every (relevant document, query) of a split as `input_ids` and `labels`, put together when read."""
    prefixes, suffixes = processor.document_ids(task.corpus), processor.query_ids(split.queries)
    judged = [(query, document) for query, relevant in enumerate(split.relevant) for document in relevant]
    rows = Dataset.from_dict({"query": [query for query, _ in judged], "document": [row for _, row in judged]})

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        pairs = zip(batch["query"], batch["document"], strict=True)
        prompts = [prefixes[document] + suffixes[query] for query, document in pairs]
        return {"input_ids": prompts, "labels": prompts}

    return rows.with_transform(tokenised)
