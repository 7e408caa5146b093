"""Tiny models, tokenizers and tasks, made in code: no test reads the network or a downloaded file."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoConfig, Qwen2Tokenizer
from transformers.utils import logging

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.distillation.encoders import student_of, teachers_encoder
from modeling_rabtriever.distillation.student import TrainingStudent
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.reranking.backbone import train_tokenizer
from modeling_rabtriever.served import client
from tests.served.completion_server import CompletionServer

torch.set_num_threads(1)
logging.disable_progress_bar()
datasets.disable_progress_bars()

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "gpt_neox": {"tie_word_embeddings": False},
}


def rest_slow(values: Iterable[Any], fast: int = 1) -> list[Any]:
    """Parameters of a test: the first ones as they are, the others for the slow tier."""
    return [value if row < fast else pytest.param(value, marks=pytest.mark.slow) for row, value in enumerate(values)]


DOCUMENTS = ["bring the sponge", "bring a lamp to the attic", "bring the very long wooden ladder", "call a doctor"]
QUERIES = ["I spilled my drink", "it is dark up here", "I cannot reach the shelf"]


@pytest.fixture(scope="session")
def tokenizer() -> Qwen2Tokenizer:
    return train_tokenizer([*DOCUMENTS, *QUERIES, "Document: Query: yes no Relevant"] * 5, 400, ("<T>", "<F>"))


@pytest.fixture
def processor(tokenizer: Qwen2Tokenizer) -> RabtrieverProcessor:
    return RabtrieverProcessor(tokenizer, instruction="Relevant:", max_document_length=16, max_query_length=16)


@pytest.fixture
def text_config(tokenizer: Qwen2Tokenizer) -> Callable[..., Any]:
    def make(family: str = "qwen2", **changes: Any) -> Any:
        sizes = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,  # large enough for scores to differ by more than rounding
        }
        return AutoConfig.for_model(family, **{**sizes, **FAMILIES[family], **changes})

    return make


@pytest.fixture
def make_reranker(processor: RabtrieverProcessor, text_config: Callable[..., Any]) -> Callable[..., Any]:
    def make(family: str = "qwen2", **changes: Any) -> GenerativeRerankerModel:
        torch.manual_seed(0)
        config = GenerativeRerankerConfig(
            text_config=text_config(family, **changes),
            true_token_id=processor.true_token_id,
            false_token_id=processor.false_token_id,
        )
        model = GenerativeRerankerModel(config).eval()
        model.processor = processor
        return model

    return make


@pytest.fixture
def reranker(make_reranker: Callable[..., Any]) -> GenerativeRerankerModel:
    return make_reranker()


@pytest.fixture
def student(reranker: GenerativeRerankerModel) -> RabtrieverModel:
    torch.manual_seed(1)
    return fresh_student(reranker, embedding_dim=24).served()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CompletionServer]]:
    """Starts servers of rerankers; the client does not wait between its tries."""
    monkeypatch.setattr(client, "LONGEST_WAIT", 0.0)
    monkeypatch.delenv(client.KEY, raising=False)
    started: list[CompletionServer] = []

    def start(reranker: GenerativeRerankerModel, form: str = "legacy") -> CompletionServer:
        started.append(CompletionServer(reranker, form))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(serve: Callable[..., CompletionServer], reranker: GenerativeRerankerModel) -> CompletionServer:
    return serve(reranker)


def fresh_student(reranker: GenerativeRerankerModel, **shape: Any) -> TrainingStudent:
    """An untrained student on the reranker's backbone; `shape` is of `StudentArguments`."""
    return student_of(teachers_encoder(reranker), reranker.answer_direction, StudentArguments(**shape))


@pytest.fixture
def beir_folder(tmp_path: Path) -> Path:
    """Twelve documents; query i of a split is answered by document i, found by an animal both name."""
    return write_animals(tmp_path / "animals")


def write_animals(folder: Path) -> Path:
    animals = ["ant", "bear", "cat", "dog", "eel", "fox", "goat", "hen", "ibis", "jay", "kiwi", "lynx"]
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for row, animal in enumerate(animals):
            file.write(json.dumps({"_id": f"d{row}", "title": "", "text": f"a story about the {animal}"}) + "\n")
    phrases = {"train": ("find", "show", "tell"), "dev": ("give",), "test": ("want", "like")}
    with (folder / "queries.jsonl").open("w") as queries:
        for split, words in phrases.items():
            lines = ["query-id\tcorpus-id\tscore\n"]
            for word in words:
                for row, animal in enumerate(animals):
                    queries.write(
                        json.dumps({"_id": f"{split}-{word}-{row}", "text": f"{word} me the {animal}"}) + "\n"
                    )
                    lines.append(f"{split}-{word}-{row}\td{row}\t1\n")
            (folder / "qrels" / f"{split}.tsv").write_text("".join(lines))
    return folder
