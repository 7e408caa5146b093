"""What all stages of a run share: the task and its splits."""

from dataclasses import dataclass, field

from ..reranking.watch import DEV
from ..tasks.beir import RetrievalTask, Split
from .checks import check_splits


@dataclass
class RunArguments:
    """What all stages share."""

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
