"""Optional, before the student: queries nobody judged, written by a language model in the training queries' manner.

Usage:
    python -m training.generate_queries --config training/recipes/saycan.yaml --data path/to/saycan

The student is distilled from the teacher's judgements, so it can learn from queries that have no labels; where
training queries are few it needs them. The language model sees some training queries and the first words of another
one, and goes on. It should know the language: a pretrained model, not one from scratch.

Writes <output_dir>/queries/queries.jsonl, lines {"_id": ..., "text": ...}, for training.distill --unjudged_queries. A
text that any split of the task has is left out. Interrupted, it goes on after the last whole batch.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from modeling_rabtriever.files import write_text
from training.backbone import DTYPES, SourceArguments
from training.recipe import parse_stage
from training.stages import StageFolder, model_digest
from training.tasks.named import load_task
from training.train_reranker import RunArguments

SEPARATOR = "\n\n"
BARREN_BATCHES = 20  # in a row, until the model is given up


@dataclass
class GenerationArguments:
    """What is written, and how."""

    output_dir: str = field(metadata={"help": "Folder of the run."})
    seed: int = field(default=0, metadata={"help": "Of the draws."})
    count: int = field(default=1000, metadata={"help": "Queries to write."})
    examples: int = field(default=6, metadata={"help": "Training queries the model sees before each."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the sampling."})
    top_k: int = field(default=50, metadata={"help": "Tokens are drawn from this many likeliest ones."})
    max_new_tokens: int = field(default=128, metadata={"help": "Queries that take more tokens are dropped."})
    batch_size: int = field(default=32, metadata={"help": "Queries written at once."})
    dtype: str = field(default="float32", metadata={"help": "Type of the weights.", "choices": DTYPES})
    device: str = field(default="cpu", metadata={"help": "Where the model runs: cpu, cuda, ..."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether code from the model's repository may run."}
    )

    def __post_init__(self) -> None:
        for name in ("count", "examples", "top_k", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; accepted: a number above 0")


ARGUMENTS = (RunArguments, SourceArguments, GenerationArguments)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the file of queries."""
    run, source, settings = parse_stage("generate_queries", ARGUMENTS, argv)
    if source.model_name_or_path is None or source.model_name_or_path.endswith(".json"):
        raise ValueError(
            f"model_name_or_path is {source.model_name_or_path}; accepted: Hub id or folder of a pretrained model"
        )
    task = load_task(run.data)
    inputs = {"task": task.fingerprint(), "model": model_digest(source.model_name_or_path)}
    stage = StageFolder(Path(settings.output_dir) / "queries", (run, source, settings), inputs, run.overwrite)
    path, unfinished = stage.folder / "queries.jsonl", stage.folder / "batches.jsonl"
    if stage.done:
        print(f"queries: done before, in {path}")
        return path
    hub = {"revision": source.model_revision, "trust_remote_code": settings.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(source.model_name_or_path, padding_side="left", **hub)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        source.model_name_or_path, dtype=getattr(torch, settings.dtype), **hub
    ).to(settings.device)
    known = {query for split in task.splits.values() for query in split.queries}
    batches = written_batches(model.eval(), tokenizer, task.split(run.train_split).queries, settings, unfinished)
    texts = collect(batches, known, settings.count)
    lines = (json.dumps({"_id": f"generated-{row:06d}", "text": text}) for row, text in enumerate(texts))
    write_text(path, "".join(f"{line}\n" for line in lines))
    unfinished.unlink()
    stage.finish(queries=len(texts))
    print(f"{len(texts)} queries in {path}")
    return path


def collect(batches: Iterator[list[str]], known: set[str], count: int) -> list[str]:
    """The first `count` texts that are neither known nor repeated.

    Raises:
        ValueError: many batches in a row bring nothing new.
    """
    texts: dict[str, None] = {}
    barren = 0
    with tqdm(total=count, desc="writing queries", unit="query") as bar:
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
) -> Iterator[list[str]]:
    """Batches of texts without end: first those an interrupted run left in `path`, then new ones, appended to it.

    A batch depends on the seed and its number alone, so that a resumed run writes what an undisturbed one would.
    """
    kept = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []
    write_text(path, "".join(f"{json.dumps(batch)}\n" for batch in kept))  # without a line that was cut off
    yield from kept
    number = len(kept)
    while True:
        batch = write_batch(model, tokenizer, queries, settings, number)
        with path.open("a") as file:
            file.write(f"{json.dumps(batch)}\n")
        yield batch
        number += 1


@torch.no_grad()
def write_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    settings: GenerationArguments,
    number: int,
) -> list[str]:
    """One batch of texts; those that did not come to an end are left out."""
    rng = random.Random(f"{settings.seed}-{number}")
    queries = [re.sub(r"\n\s*\n", "\n", query) for query in queries]  # blank lines stand between queries
    openings = [opening(rng.choice(queries), rng) for _ in range(settings.batch_size)]
    examples = min(settings.examples, len(queries))
    prompts = [SEPARATOR.join([*rng.sample(queries, examples), words]) for words in openings]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    room = model.config.max_position_embeddings - settings.max_new_tokens
    if inputs["input_ids"].shape[1] > room:
        raise ValueError(f"{examples} examples take {inputs['input_ids'].shape[1]} tokens; accepted: at most {room}")
    torch.manual_seed(rng.getrandbits(32))
    output: Any = model.generate(
        **inputs,
        do_sample=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        max_new_tokens=settings.max_new_tokens,
        stop_strings=[SEPARATOR],
        tokenizer=tokenizer,
        pad_token_id=tokenizer.pad_token_id,
    )
    written = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    ended = output[:, -1].eq(tokenizer.pad_token_id).tolist()
    return [
        (words + text.partition(SEPARATOR)[0]).strip()
        for words, text, end in zip(openings, written, ended, strict=True)
        if SEPARATOR in text or end
    ]


def opening(query: str, rng: random.Random) -> str:
    """The first words of a query: at least one, and not much more than two thirds."""
    words = query.split(" ")
    return " ".join(words[: rng.randint(1, max(1, len(words) * 2 // 3))])


if __name__ == "__main__":
    main()
