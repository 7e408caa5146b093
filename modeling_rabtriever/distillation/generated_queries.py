"""Queries without labels, written by a language model that is fine-tuned on the training queries."""

import copy
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .. import RabtrieverConfig
from ..errors import refusing
from ..files import write_folder, write_text
from ..progress import progress
from ..reranking.backbone import BackboneArguments
from ..reranking.pretraining import PretrainingTrainer
from ..reranking.reranker_trainer import LanguageModelTrainingConfig
from ..trainers.processes import on_main
from ..trainers.stage_folder import StageFolder

BARREN_BATCHES = 20  # batches in a row without a new query, after which generation fails


@dataclass
class GenerationArguments:
    """How queries are generated; the fine-tuning has the settings of a trainer."""

    count: int = field(
        default=1000,
        metadata={
            "help": "Queries for the language model to write; 0 for none. On SayCan, 1,600 were worth 15 points of R@1 "
            "to a student with a frozen encoder (one seed)."
        },
    )
    swapped: int = field(
        default=0,
        metadata={
            "help": "Queries to make from training queries by exchanging names that documents use in the same place "
            "(`swaps`), which needs no model; 0 for none. On SayCan, 2,400 were worth 11 points of R@1 to a student "
            "with a frozen encoder."
        },
    )
    temperature: float = field(
        default=1.3,
        metadata={"help": "Temperature of the sampling; at 1, a fine-tuned model repeats training queries."},
    )
    top_k: int = field(default=50, metadata={"help": "Each token is drawn from this many most likely ones."})
    max_new_tokens: int = field(default=128, metadata={"help": "Queries that take more tokens are dropped."})
    batch_size: int = field(default=64, metadata={"help": "Queries written at once."})

    def __post_init__(self) -> None:
        for name, least in {"count": 0, "swapped": 0, "top_k": 1, "max_new_tokens": 1, "batch_size": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: {least} or more")
        if not self.count + self.swapped:
            raise ValueError("count and swapped are both 0; accepted: at least one query")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; accepted: a number above 0")


def written(
    backbone: BackboneArguments,
    config: LanguageModelTrainingConfig,
    queries: Sequence[str],
    settings: GenerationArguments,
    known: set[str],
    stage: StageFolder,
) -> list[str]:
    """`settings.count` queries, none of them known, by a language model fine-tuned on `queries`.

    All processes share the fine-tuning; the main one generates. An interrupted run resumes after the last batch.

    Raises:
        ValueError: as `fit` and `collect`.
    """
    if not on_main(stage.model.exists):
        fit(backbone, config, queries, stage)

    def write() -> list[str]:
        tokenizer = AutoTokenizer.from_pretrained(stage.model, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(
            stage.model,
            dtype=torch.bfloat16 if config.bf16 else torch.float32,
            trust_remote_code=config.trust_remote_code,
        )
        model.to(config.device).eval()
        batches = written_batches(model, tokenizer, queries, settings, batches_file(stage), seed=config.seed)
        return collect(batches, known, settings.count)

    return on_main(write)


def context_window(config: PreTrainedConfig) -> float:
    """How many tokens a language model reads; infinity if its configuration states no window, as Bloom's."""
    own = copy.deepcopy(config.get_text_config())  # becomes part of the other configuration, which resets its attention
    return RabtrieverConfig(text_config=own).window or math.inf


def batches_file(stage: StageFolder) -> Path:
    """The file of the batches generated so far; the stage deletes it at its end."""
    return stage.folder / "batches.jsonl"


def fit(
    backbone: BackboneArguments, config: LanguageModelTrainingConfig, queries: Sequence[str], stage: StageFolder
) -> None:
    """Language modelling on the queries, each a separate text; saves the model to `stage.model`.

    Raises:
        ValueError: the tokenizer has no end-of-text token, so no query would ever end.
    """
    path = str(backbone.model_name_or_path)  # the stage has checked that there is one
    hub: dict[str, Any] = {"revision": backbone.model_revision, "trust_remote_code": config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(path, **hub)
    if tokenizer.eos_token is None:
        raise ValueError(f"{path} has no end-of-text token; accepted: a tokenizer with one")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=getattr(torch, backbone.dtype),
        attn_implementation=backbone.attn_implementation,
        use_safetensors=True,
        **hub,
    )
    room = context_window(model.config)
    cut: dict[str, Any] = {} if room == math.inf else {"truncation": True, "max_length": room - 1}
    texts = tokenizer(list(queries), **cut)["input_ids"]
    rows = [[*ids, tokenizer.eos_token_id] for ids in texts]
    config.output_dir = str(stage.checkpoints)
    trainer = PretrainingTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=stage.last_checkpoint(config.resume_from_checkpoint))

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    on_main(lambda: write_folder(stage.model, save))


def collect(batches: Iterator[list[str]], known: set[str], count: int) -> list[str]:
    """The first `count` texts that are neither known nor repeated.

    Raises:
        ValueError: `BARREN_BATCHES` batches in a row bring nothing new.
    """
    texts: dict[str, None] = {}
    barren = 0
    with progress(count, "writing queries", "query") as bar:
        for batch in batches:
            before = len(texts)
            texts |= dict.fromkeys(text for text in batch if text not in known)
            barren = 0 if len(texts) > before else barren + 1
            if barren == BARREN_BATCHES:
                raise ValueError(
                    f"{len(texts)} of {count} queries, and {barren} batches in a row brought no new one; accepted: a "
                    "smaller count, a higher temperature or max_new_tokens, or a better language model"
                )
            bar.update(min(len(texts), count) - min(before, count))
            if len(texts) >= count:
                break
    return list(texts)[:count]


def written_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    settings: GenerationArguments,
    path: Path,
    seed: int,
) -> Iterator[list[str]]:
    """An endless stream of batches: first those that an interrupted run left in `path`, then new ones, appended to it.

    A batch depends only on the seed and its number, so a resumed run writes the same queries as an uninterrupted one.
    """
    with refusing(f"{path} is broken", "the file as it was written; delete it to generate all queries again"):
        kept = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []
    write_text(path, "".join(f"{json.dumps(batch)}\n" for batch in kept))  # drops a line that was cut off
    yield from kept
    number = len(kept)
    while True:
        batch = write_batch(model, tokenizer, queries, settings, f"{seed}-{number}")
        with path.open("a") as file:
            file.write(f"{json.dumps(batch)}\n")
        yield batch
        number += 1


@torch.no_grad()
def write_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    settings: GenerationArguments,
    seed: str,
) -> list[str]:
    """One batch of texts, without those that have no end-of-text token.

    Raises:
        ValueError: the first words of a query and max_new_tokens exceed the model's context.
    """
    rng = random.Random(seed)
    openings = [opening(rng.choice(queries), rng) for _ in range(settings.batch_size)]
    inputs = tokenizer(openings, return_tensors="pt", padding=True).to(model.device)
    length, room = inputs["input_ids"].shape[1], context_window(model.config)
    if length + settings.max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens is {settings.max_new_tokens}, after {length} tokens of first words; accepted: at most "
            f"{room} together, the model's context"
        )
    torch.manual_seed(rng.getrandbits(32))
    output: Any = model.generate(
        **inputs,
        do_sample=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    written = output[:, length:]
    ended = written.eq(tokenizer.eos_token_id).any(dim=1).tolist()
    # Prompt and continuation are decoded together, because decoding them separately loses spaces between them.
    texts = tokenizer.batch_decode(output, skip_special_tokens=True)
    return [
        text.strip()
        for words, text, end in zip(openings, texts, ended, strict=True)
        if end and text.strip() != words.strip()
    ]


def opening(query: str, rng: random.Random) -> str:
    """The first words of a query (characters in scripts without spaces): at least one, at most about a third."""
    space = " " if " " in query.strip() or query.isascii() else ""
    parts = query.split(" ") if space else list(query)
    return space.join(parts[: rng.randint(1, max(1, len(parts) // 3))])
