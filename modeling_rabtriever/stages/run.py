"""Settings that all stages of a run share: the task and its splits."""

from dataclasses import dataclass, field

from ..tasks.beir import DEV, RetrievalTask, Split
from .checks import check_splits


@dataclass
class RunArguments:
    """Settings of all stages."""

    data: str = field(
        metadata={
            "help": "The task: a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/<split>.tsv), "
            "hub:<data set> in that layout, or a task's name such as esconv (tasks/named.yaml).",
            "aliases": ["--task"],
        }
    )
    train_split: str = field(default="train", metadata={"help": "Split the models are trained on."})
    dev_split: str | None = field(
        default=None,
        metadata={"help": "Split to evaluate on during training; default: dev, if the task has it."},
    )
    skip_bad: bool = field(
        default=False,
        metadata={
            "help": "Skip lines that are not a document or query, and relevance labels of a missing document or query, "
            "and report how many, instead of stopping."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished or started stage that had other settings."}
    )

    def splits(self, task: RetrievalTask) -> tuple[Split, Split | None]:
        """The training split, and the split to evaluate on during training, if there is one.

        Raises:
            ValueError: the task lacks the training split, or a dev split that was given by name.
        """
        named = {"train_split": self.train_split, "dev_split": self.dev_split}
        check_splits(task, **{option: name for option, name in named.items() if name is not None})
        return task.splits[self.train_split], task.splits.get(self.dev_split or DEV)
