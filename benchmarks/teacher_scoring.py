"""How fast the teacher scores: a plain full pass, sentence-transformers, ours, ours with cached document prefixes.

Usage:
    python -m benchmarks.teacher_scoring              # about a quarter of an hour on two cores

A random backbone of more than 10M parameters; prefixes of 128 tokens, suffixes of 32, 200 documents x 20 queries. All
systems take turns to score each block of documents, so that a noisy machine affects both sides of a ratio alike. Writes
results/teacher_scoring.json and .png.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoConfig

from benchmarks.results import FOLDER, bar, write_result
from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.distillation.encoders import student_of, teachers_encoder
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.export import export_cross_encoder
from modeling_rabtriever.reranking.backbone import train_tokenizer

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BACKBONE = {
    "model_type": "qwen2",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
PREFIX, SUFFIX = 128, 32
BATCH = 32  # of the plain pass, and sentence-transformers' default
LENGTHS = (16, 32, 64, 128, 256, 512)
# Random words of letters; the tokenizer learns each as one token, with the space before it.
WORDS = ["".join(pair) for pair in itertools.product(("po", "ke", "li", "mo", "nu", "ra", "se", "ti"), repeat=4)]


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=5, help="number of blocks of documents")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = random.Random(0)
    reranker = make_reranker()
    texts = TextMaker(reranker.processor, rng)
    queries = [texts.query(SUFFIX) for _ in range(arguments.queries)]
    with tempfile.TemporaryDirectory() as folder:
        export_cross_encoder(reranker, folder)
        systems = Systems(reranker, folder)
        blocks = []
        per_block = arguments.documents // arguments.blocks
        for block in range(arguments.blocks):
            documents = [texts.document(PREFIX) for _ in range(per_block)]
            blocks.append(measure_block(systems, queries, documents, block))
            print(f"block {block + 1} of {arguments.blocks}: {blocks[-1]}", flush=True)
        few = queries[:10]
        curve = [measure_length(systems, few, [texts.document(n) for _ in range(4)], n) for n in LENGTHS]
    plot(curve, FOLDER / "teacher_scoring.png")
    bars = [
        ratio_bar(blocks, "sentence_transformers", "ours", 1.1),
        ratio_bar(blocks, "plain", "cached", 3.5),
    ]
    settings = {**vars(arguments), "prefix": PREFIX, "suffix": SUFFIX, "batch": BATCH, "backbone": BACKBONE}
    settings |= {"parameters": reranker.num_parameters(), "dtype": "float32"}
    print(write_result("benchmarks.teacher_scoring", settings, [*blocks, *curve], bars))


class TextMaker:
    """Random texts whose prefix or suffix has an exact number of tokens: every word is one token."""

    def __init__(self, processor: RabtrieverProcessor, rng: random.Random) -> None:
        self.processor, self.rng = processor, rng

    def document(self, length: int) -> str:
        """A document whose prompt prefix has `length` tokens."""
        return self._text(lambda text: self.processor.document_ids(text)[0], length)

    def query(self, length: int) -> str:
        """A query whose prompt suffix has `length` tokens."""
        return self._text(lambda text: self.processor.query_ids(text)[0], length)

    def _text(self, ids: Callable[[str], list[int]], length: int) -> str:
        words = self.rng.choices(WORDS, k=length - len(ids(WORDS[0])) + 1)
        text = " ".join(words)
        if len(ids(text)) != length:
            raise RuntimeError(f"a word is not one token: {len(ids(text))} tokens instead of {length}")
        return text


class Systems:
    """The four ways to score all pairs, and the student."""

    def __init__(self, reranker: GenerativeRerankerModel, exported: str) -> None:
        self.reranker = reranker
        self.causal = reranker.backbone  # a plain causal language model
        self.encoder = CrossEncoder(exported, device="cpu")
        self.student = make_student(reranker)

    @torch.no_grad()
    def plain(self, queries: Sequence[str], documents: Sequence[str]) -> torch.Tensor:
        """Full prompts in padded batches through the causal language model, all logits."""
        processor, scores = self.reranker.processor, []
        pairs = [(query, document) for query in queries for document in documents]
        for start in range(0, len(pairs), BATCH):
            chunk = pairs[start : start + BATCH]
            batch = processor(query=[query for query, _ in chunk], document=[document for _, document in chunk])
            logits = self.causal(**batch).logits[:, -1]
            scores.append(logits[:, processor.true_token_id] - logits[:, processor.false_token_id])
        return torch.cat(scores).view(len(queries), -1)

    def sentence_transformers(self, queries: Sequence[str], documents: Sequence[str]) -> torch.Tensor:
        """`CrossEncoder.predict` on the exported model."""
        pairs = [(query, document) for query in queries for document in documents]
        scores = self.encoder.predict(pairs, batch_size=BATCH, show_progress_bar=False)
        return torch.from_numpy(scores).view(len(queries), -1)

    def ours(self, queries: Sequence[str], documents: Sequence[str]) -> torch.Tensor:
        """`GenerativeRerankerModel.predict`, full prompts."""
        pairs = [(query, document) for query in queries for document in documents]
        return self.reranker.predict(pairs).view(len(queries), -1)


def measure_block(systems: Systems, queries: Sequence[str], documents: Sequence[str], block: int) -> dict[str, Any]:
    """Seconds and peak memory of each system on one block; the order rotates. Scores must agree."""
    scores: dict[str, torch.Tensor] = {}
    row: dict[str, Any] = {"block": block, "pairs": len(queries) * len(documents)}

    def cached() -> torch.Tensor:
        start = time.perf_counter()
        prefixes = systems.reranker.prefill(documents)
        row["prefill_seconds"] = time.perf_counter() - start
        row["prefix_megabytes"] = prefixes.nbytes / 1e6
        start = time.perf_counter()
        found = systems.reranker.score(queries, prefixes)
        row["cached_seconds"] = time.perf_counter() - start
        return found

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: systems.plain(queries, documents),
        "sentence_transformers": lambda: systems.sentence_transformers(queries, documents),
        "ours": lambda: systems.ours(queries, documents),
        "cached": cached,
    }
    names = list(ways)
    for name in names[block % len(names) :] + names[: block % len(names)]:
        reset_peak_memory()
        start = time.perf_counter()
        scores[name] = ways[name]()
        row.setdefault(f"{name}_seconds", time.perf_counter() - start)
        row[f"{name}_peak_gb"] = peak_memory_gb()
    for name in names:
        torch.testing.assert_close(scores[name], scores["plain"], atol=1e-4, rtol=0)
    return row


def measure_length(systems: Systems, queries: Sequence[str], documents: Sequence[str], length: int) -> dict[str, Any]:
    """Milliseconds per pair at one document length, median of three; documents are prefilled or encoded before."""
    prefixes = systems.reranker.prefill(documents)
    vectors = systems.student.encode_document(documents)
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: systems.plain(queries, documents),
        "cached": lambda: systems.reranker.score(queries, prefixes),
        "student": lambda: systems.student.similarity(systems.student.encode_query(queries), vectors),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    pairs = len(queries) * len(documents)
    found = {f"{name}_ms_per_pair": 1000 * statistics.median(taken) / pairs for name, taken in seconds.items()}
    print(f"prefixes of {length} tokens: {found}", flush=True)
    return {"prefix_tokens": length, "pairs": pairs, **found}


def ratio_bar(blocks: Sequence[dict[str, Any]], slow: str, fast: str, limit: float) -> dict[str, Any]:
    """Median over blocks of how many times faster `fast` is, with the lowest and highest block."""
    ratios = [block[f"{slow}_seconds"] / block[f"{fast}_seconds"] for block in blocks]
    name = f"{fast} against {slow}, times faster"
    return bar(name, statistics.median(ratios), ">=", limit, len(ratios), (min(ratios), max(ratios)))


def make_student(reranker: GenerativeRerankerModel, width: int = 256) -> RabtrieverModel:
    """An untrained student on the reranker's backbone; `width` numbers per text."""
    shape = StudentArguments(embedding_dim=width)
    with reranker.device:  # a CPU takes minutes to draw billions of random weights
        return student_of(teachers_encoder(reranker), reranker.answer_direction, shape).served()


def make_reranker(
    backbone: Mapping[str, Any] = BACKBONE, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> GenerativeRerankerModel:
    """A reranker with random weights and a tokenizer that knows every word of `WORDS`."""
    tokenizer = train_tokenizer((f" {word}" for word in WORDS for _ in range(2)), 8_000, ("<T>", "<F>"))
    processor = RabtrieverProcessor(tokenizer, max_document_length=600, max_query_length=100, instruction="Relevant:")
    answers = {"true_token_id": processor.true_token_id, "false_token_id": processor.false_token_id}
    torch.manual_seed(0)
    text_config = AutoConfig.for_model(**{"vocab_size": len(tokenizer), **backbone})
    with torch.device(device):
        config = GenerativeRerankerConfig(text_config=text_config, **answers)
        reranker = GenerativeRerankerModel._from_config(config, dtype=dtype).eval()
    reranker.processor = processor
    return reranker


def reset_peak_memory() -> None:
    """Starts a new peak (Linux; elsewhere the peak is that of the whole run)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_memory_gb() -> float:
    """Peak resident memory since the last reset."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e9


def plot(curve: Sequence[dict[str, Any]], path: Path) -> None:
    """Milliseconds per pair against the length of the document."""
    figure, panel = plt.subplots(figsize=(6, 4.2), layout="constrained")
    labels = {
        "plain": "reranker, full pass",
        "cached": "reranker, cached prefixes",
        "student": "Rabtriever, encoded documents",
    }
    for name, label in labels.items():
        panel.plot(
            [row["prefix_tokens"] for row in curve],
            [row[f"{name}_ms_per_pair"] for row in curve],
            marker="o",
            label=label,
        )
    panel.set(xscale="log", yscale="log", xlabel="tokens of the document", ylabel="ms per pair")
    panel.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    panel.minorticks_off()
    panel.legend(frameon=False)
    panel.set_title(f"{curve[0]['pairs']} pairs, queries of {SUFFIX} tokens")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
