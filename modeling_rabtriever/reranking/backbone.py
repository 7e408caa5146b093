"""The backbone a teacher starts from: a pretrained causal language model, or a fresh one built from a configuration."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer, set_seed
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .. import (
    GenerativeRerankerConfig,
    GenerativeRerankerModel,
    RabtrieverConfig,
    RabtrieverModel,
    RabtrieverProcessor,
)
from ..errors import refusing
from ..processing_rabtriever import PAPER_ANSWERS, PAPER_INSTRUCTION, MissingProcessorError, paper_instruction
from ..recipes import backbone_path
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


@dataclass
class BackboneArguments(SourceArguments):
    """How the teacher's language model is loaded."""

    dtype: str = field(
        default="float32", metadata={"help": "Type of the weights.", "choices": ["float32", "bfloat16", "float16"]}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention implementation for training, as in from_pretrained: 'sdpa', 'eager', "
            "'flash_attention_2', ... On CPUs in bf16 'eager' trains fastest: 135M parameters take 2.8 s backward "
            "instead of 4.5."
        },
    )


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


def build_reranker(
    backbone: BackboneArguments,
    prompt: PromptArguments,
    texts: Iterable[str],
    seed: int,
    trust_remote_code: bool,
) -> GenerativeRerankerModel:
    """An untrained reranker with its processor.

    Args:
        backbone: where the weights or the configuration come from.
        prompt: the processor's settings.
        texts: training texts of the tokenizer if the backbone starts from scratch; never evaluation queries.
        seed: of the weights of a backbone from scratch.
        trust_remote_code: whether code from the backbone's repository may run.

    Raises:
        ValueError: the configuration file is missing or malformed, or the prompt does not fit the tokenizer.
    """
    source = backbone.model_name_or_path
    if source is None:
        raise ValueError("model_name_or_path is missing; accepted: a Hub id, a folder, or a .json configuration")
    scratch = source.endswith(".json")
    tokenizer: Any
    hub: dict[str, Any] = {"revision": backbone.model_revision, "trust_remote_code": trust_remote_code}
    if scratch:
        settings = read_backbone_config(source)
        tokenizer = train_tokenizer(texts, settings["vocab_size"], (prompt.true_answer, prompt.false_answer))
        own = {"vocab_size": len(tokenizer)}  # unused embeddings would only cost memory
        own |= {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
        text_config = AutoConfig.for_model(**{**settings, **own})
    else:
        accepted = "a Hub id or a folder of a causal language model"
        with refusing(f"model_name_or_path {source} cannot be loaded", accepted):
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
            text_config = AutoConfig.from_pretrained(source, **hub)
    processor = RabtrieverProcessor(tokenizer, **vars(prompt))
    config = GenerativeRerankerConfig(
        text_config=text_config, true_token_id=processor.true_token_id, false_token_id=processor.false_token_id
    )
    if scratch:
        set_seed(seed)
        reranker = GenerativeRerankerModel(config).to(getattr(torch, backbone.dtype))
    else:
        reranker = GenerativeRerankerModel.from_pretrained(
            source, config=config, dtype=getattr(torch, backbone.dtype), **hub
        )
    reranker.processor = processor
    check_backbone(reranker)
    if backbone.attn_implementation is not None:
        reranker.set_attn_implementation(backbone.attn_implementation)
    return reranker


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


def padded(tokenizer: Any) -> Any:
    """A copy of a tokenizer with a padding token, which trainers need; padding is masked, so any token will do."""
    own = copy.deepcopy(tokenizer)
    if own.pad_token_id is None:
        own.pad_token = own.eos_token or own.bos_token or own.unk_token or own.convert_ids_to_tokens(0)
    return own


def check_student(config: GenerativeRerankerConfig) -> None:
    """Checks that a student can be built on a teacher's backbone; takes no memory.

    Raises:
        ValueError: the backbone without its head differs from the model that AutoModel would load for the student.
    """
    text_config: Any = config.text_config
    with torch.device("meta"):
        teacher = GenerativeRerankerModel(config).backbone.base_model
        student = RabtrieverModel(RabtrieverConfig(text_config=text_config)).backbone
    own, wanted = teacher.state_dict().keys(), student.state_dict().keys()
    if own != wanted:
        raise ValueError(
            f"the backbone {text_config.model_type} without its head has other weights ({min(own ^ wanted)}) than "
            "AutoModel; accepted: a causal language model that AutoModel loads without its head"
        )


@torch.no_grad()
def check_backbone(reranker: GenerativeRerankerModel) -> None:
    """Checks that a score does not depend on longer prompts in the batch or on cached document states.

    Raises:
        ValueError: a score does, or no student can be built on the backbone.
    """
    config: Any = reranker.config
    check_student(config)
    limit = reranker.processor.max_document_length
    queries, documents = ["a", "which one of them, and why?"], ["b", "one two three. " * (limit // 3 + 1)]
    pairs = [(query, document) for document in documents for query in queries]
    alone = torch.cat([reranker.predict([pair]) for pair in pairs])
    spread = 1e-3 if reranker.dtype == torch.float32 else 0.1
    allowed = spread * max(float(alone.abs().max()), 1.0)
    for scores, how in (
        (reranker.predict(pairs, token_budget=1 << 20), "if the batch has longer prompts"),
        (reranker.score(queries, documents).T.flatten(), "if document states are cached"),
    ):
        difference = float((scores - alone).abs().max())
        if not difference <= allowed:  # also refuses NaN
            raise ValueError(
                f"the backbone {config.text_config.model_type}: scores change by {difference:.3g} {how}; accepted: at "
                f"most {allowed:.1g}, from causal language models that mask padding"
            )


def train_tokenizer(texts: Iterable[str], vocab_size: int, answers: tuple[str, str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens that splits text like Qwen2's.

    The answers become special tokens. The class is Qwen2's because `AutoTokenizer` requires it for `qwen2` models.
    """
    blank = Qwen2Tokenizer(extra_special_tokens=list(answers), padding_side="left")
    return blank.train_new_from_iterator(texts, vocab_size, show_progress=False)


def read_backbone_config(name_or_path: str) -> dict[str, Any]:
    """The configuration of a language model from scratch, from a .json file (`recipes.backbone_path`).

    Raises:
        ValueError: the file is missing, is not a JSON object, or describes no model that transformers can build and
            run.
    """
    path = backbone_path(name_or_path)
    accepted = "a .json configuration of a causal language model, such as backbones/qwen2-1m.json"
    with refusing(f"model_name_or_path {path} is not a model configuration", accepted):
        settings = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(settings, dict) or not {"model_type", "vocab_size"} <= settings.keys():
        raise ValueError(f'{path} lacks "model_type" or "vocab_size"; accepted: {accepted}')
    if settings["model_type"] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(f"{path}: model_type is {settings['model_type']!r}; accepted: {accepted}")
    with refusing(f"model_name_or_path {path} describes a model that cannot run", accepted), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
        model(
            input_ids=torch.zeros(1, 2, dtype=torch.long)
        )  # free on this device; finds sizes that do not fit together
    return settings
