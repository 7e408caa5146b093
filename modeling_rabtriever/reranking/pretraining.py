"""Language modelling on a backbone from scratch, before it learns to rank."""

from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from trl import SFTTrainer

from .. import RabtrieverProcessor
from ..tasks.beir import RetrievalTask, Split
from ..trainers.shared_trainer import SharedTrainer


class PretrainingTrainer(SharedTrainer, SFTTrainer):  # type: ignore[misc]  # TRL types loss_is_scaled_for_ga as None
    """`SFTTrainer` with the model's own loss over all tokens.

    TRL's trainer also measures the entropy at every token. Without Triton, that takes several times longer than the
    forward and backward passes of a small model.
    """

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy of the next token."""
        if return_outputs:
            raise ValueError("return_outputs is True; accepted: False (this trainer evaluates only the loss)")
        loss = model(**inputs, use_cache=False).loss
        tokens = int(inputs["labels"][:, 1:].ne(-100).sum())
        return self.batch_means({"loss": loss}, {"loss": tokens})["loss"]


def prompt_dataset(task: RetrievalTask, split: Split, processor: RabtrieverProcessor) -> Dataset:
    """Every (relevant document, query) of a split as `input_ids` and `labels`, tokenised when read."""
    prefixes, suffixes = processor.document_ids(task.corpus), processor.query_ids(split.queries)
    labelled = [(query, document) for query, relevant in enumerate(split.relevant) for document in relevant]
    rows = Dataset.from_dict({"query": [query for query, _ in labelled], "document": [row for _, row in labelled]})

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        pairs = zip(batch["query"], batch["document"], strict=True)
        prompts = [prefixes[document] + suffixes[query] for query, document in pairs]
        return {"input_ids": prompts, "labels": prompts}

    return rows.with_transform(tokenised)
