"""Where a teacher's language model comes from, and its prompt."""

from dataclasses import dataclass, field, replace
from typing import Any

from transformers import AutoTokenizer

from ..errors import refusing
from ..processing_rabtriever import (
    PAPER_ANSWERS,
    PAPER_INSTRUCTION,
    MissingProcessorError,
    RabtrieverProcessor,
    paper_instruction,
)
from ..tasks.named import named_tasks


@dataclass
class SourceArguments:
    """The language model to start from."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or folder of a causal language model, or a .json file with a model configuration to start "
            "from scratch, with a tokenizer trained on the texts of the task."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub model."})

    def __post_init__(self) -> None:
        if self.model_name_or_path is not None:
            self.model_name_or_path = str(self.model_name_or_path)  # a Path, from Python


@dataclass
class PromptArguments:
    """The prompt, settings of `RabtrieverProcessor`. A named task has its own prompt."""

    true_answer: str = field(default="<T>", metadata={"help": "Answer 'relevant': one token of the vocabulary."})
    false_answer: str = field(default="<F>", metadata={"help": "Answer 'not relevant': one token of the vocabulary."})
    instruction: str = field(
        default=PAPER_INSTRUCTION,
        metadata={
            "help": "The question for the model; default: that of the named task, or else the paper's with these "
            "answers."
        },
    )
    document_template: str = field(
        default="Document: {document}\n",
        metadata={
            "help": "Prompt prefix; holds {document} once. A token of the vocabulary that ends it is worth 1.8 "
            "points of the teacher's R@1 and 2.2 of the student's on household, nothing on ESConv."
        },
    )
    query_template: str = field(
        default="Query: {query}\n{instruction}", metadata={"help": "Prompt suffix; holds {query} once."}
    )
    max_document_length: int = field(default=128, metadata={"help": "Tokens kept of a document."})
    max_query_length: int = field(default=128, metadata={"help": "Tokens kept of a query."})
    query_truncation_side: str = field(
        default="right", metadata={"help": "Side on which an overlong query is cut.", "choices": ["left", "right"]}
    )

    def changed(self) -> list[str]:
        """Names of the settings that are not the defaults."""
        default = PromptArguments()
        return [name for name, value in vars(self).items() if value != getattr(default, name)]

    def for_task(self, source: str) -> "PromptArguments":
        """The prompt for a task: of `named.yaml` unless settings are given; the paper's instruction gets these answers.

        Raises:
            ValueError: the instruction asks for the paper's answers, but the answers are different.
        """
        about, default = named_tasks().get(source), PromptArguments()
        wordings = () if about is None else ("instruction", "document_template", "query_template")
        unset = [name for name in wordings if getattr(self, name) == getattr(default, name)]
        prompt = replace(self, **{name: getattr(about, name) for name in unset})
        if prompt.instruction == PAPER_INSTRUCTION:
            prompt.instruction = paper_instruction(prompt.true_answer, prompt.false_answer)
        answers = (prompt.true_answer, prompt.false_answer)
        wrong = [answer for answer in PAPER_ANSWERS if answer in prompt.instruction and answer not in answers]
        if wrong:
            raise ValueError(
                f"instruction asks for {', '.join(wrong)}, true_answer is {answers[0]!r}, false_answer is "
                f"{answers[1]!r}; accepted: an instruction that asks for these answers, as the default does"
            )
        return prompt


def read_prompt(
    source: SourceArguments, prompt: PromptArguments, task: str, trust_remote_code: bool
) -> RabtrieverProcessor:
    """The prompt of a model whose weights are elsewhere: a reranker's own, or `prompt` with the model's tokenizer.

    Args:
        source: where the tokenizer is.
        prompt: the processor's settings, unless the model is a reranker that was saved with its prompt.
        task: name or folder of the task, which may have a prompt of its own.
        trust_remote_code: whether code from the repository may run.

    Raises:
        ValueError: there is no tokenizer, the prompt does not fit it, or a reranker's own prompt is to be changed.
    """
    name = source.model_name_or_path
    if name is None or name.endswith(".json"):
        raise ValueError(f"model_name_or_path is {name}; accepted: a Hub id or a folder with the teacher's tokenizer")
    hub: dict[str, Any] = {"revision": source.model_revision, "trust_remote_code": trust_remote_code}
    with refusing(f"model_name_or_path {name} cannot be read", "a Hub id or a folder with the teacher's tokenizer"):
        try:
            own = RabtrieverProcessor.from_pretrained(name, **hub)
        except (MissingProcessorError, OSError):
            own, tokenizer = None, AutoTokenizer.from_pretrained(name, **hub)
    if own is None:
        return RabtrieverProcessor(tokenizer, **vars(prompt.for_task(task)))
    if changed := prompt.changed():
        raise ValueError(
            f"{', '.join(changed)} given, but {name} has a prompt of its own; accepted: the settings with which it was "
            "trained, which it has, or the folder of its backbone"
        )
    return own
