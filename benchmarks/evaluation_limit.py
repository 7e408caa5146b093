"""What one vector per text can express, by fitting LIMIT-small directly: 46 documents, two relevant ones per query.

Usage:
    python -m benchmarks.evaluation_limit --data path/to/limit_small

Three ways to fit the same labels by inner products of width k, each trained on the labels it is measured on, so
that any gap is the limit of the form and not of the data:
- free vectors: every query and document has its own vector of k numbers, independent of its text;
- linear: a linear map of the text features of each side, like a bi-encoder's projection;
- query-side MLP: Rabtriever's predictor on the same features, a 2-layer MLP on the query, a linear map of the document.
The features come from a frozen sentence encoder. "unseen" is the same fit on 80% of the queries, measured on the rest.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoConfig

from benchmarks.results import with_earlier, write_result
from modeling_rabtriever import RabtrieverConfig
from modeling_rabtriever.distillation.student import TrainingPredictor
from modeling_rabtriever.evaluation.systems import NO_PICKLE
from modeling_rabtriever.tasks.beir import load_beir

WIDTHS = (2, 4, 8, 16, 32, 64, 128)
STEPS, LEARNING_RATE = 600, 0.01
UNITS = 256  # hidden units of the query's MLP


class FreeVectors(nn.Module):
    """A table of vectors per side, without features."""

    def __init__(self, queries: int, documents: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) / width**0.5)
        self.documents = nn.Parameter(torch.randn(documents, width) / width**0.5)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Scores `(n, m)`; `queries` are rows of the table."""
        return self.queries[queries] @ self.documents.T


class Linear(nn.Module):
    """A linear map per side."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query, self.document = nn.Linear(features, width), nn.Linear(features, width)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Scores `(n, m)` of features `(n, f)` and `(m, f)`."""
        return self.query(queries) @ self.document(documents).T


class QueryMLP(nn.Module):
    """Rabtriever's predictor, with an answer direction of ones."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        text_config = AutoConfig.for_model("qwen2", hidden_size=features, num_attention_heads=1, vocab_size=2)
        shape = {"embedding_dim": width, "query_hidden_size": UNITS, "feature_poolings": ["last"]}
        self.predictor = TrainingPredictor(RabtrieverConfig(text_config=text_config, **shape), torch.ones(features))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Scores `(n, m)` of features `(n, f)` and `(m, f)`."""
        return self.predictor.encode_query(queries) @ self.predictor.encode_document(documents).T


def fit(model: nn.Module, queries: Tensor, documents: Tensor, relevant: Tensor) -> None:
    """Softmax cross-entropy against the two relevant documents; all queries at once, Adam, cosine schedule."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    target = relevant / relevant.sum(1, keepdim=True)
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(model(queries, documents), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def both_found(model: nn.Module, queries: Tensor, documents: Tensor, relevant: Tensor) -> float:
    """Share of queries whose relevant documents all rank before the others."""
    scores = model(queries, documents)
    worst_right = scores.masked_fill(relevant == 0, torch.inf).amin(1)
    best_wrong = scores.masked_fill(relevant > 0, -torch.inf).amax(1)
    return (worst_right > best_wrong).double().mean().item()


def measure(features: tuple[Tensor, Tensor], relevant: Tensor, width: int, seed: int) -> list[dict[str, Any]]:
    """One row per form of the score."""
    queries, documents = features
    (n, m), f = relevant.shape, queries.shape[1]
    seen = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) < 0.8 * n

    def make(form: str) -> Any:
        if form == "free vectors":
            return FreeVectors(n, m, width)
        return Linear(f, width) if form == "linear" else QueryMLP(f, width)

    rows = []
    for form in ("free vectors", "linear", "query-side MLP"):
        torch.manual_seed(seed)
        given = torch.arange(n) if form == "free vectors" else queries
        model = make(form)
        fit(model, given, documents, relevant)
        row = {"form": form, "k": width, "seed": seed, "fitted": both_found(model, given, documents, relevant)}
        if form != "free vectors":
            model = make(form)
            fit(model, given[seen], documents, relevant[seen])
            row["unseen"] = both_found(model, given[~seen], documents, relevant[~seen])
        rows.append(row)
    return rows


def main() -> None:
    """Measures all widths and seeds, and adds them to the result file, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="LIMIT-small in BEIR layout")
    parser.add_argument(
        "--sentence_encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="encoder of the features"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    task = load_beir(arguments.data)
    split = task.split("test")
    encoder = SentenceTransformer(arguments.sentence_encoder, device="cpu", model_kwargs=NO_PICKLE)
    features = tuple(encoder.encode(list(texts), convert_to_tensor=True) for texts in (split.queries, task.corpus))
    features = tuple((side - side.mean(0)) / side.std(0) for side in features)
    relevant = torch.zeros(len(split), len(task.corpus))
    for query, right in enumerate(split.relevant):
        relevant[query, list(right)] = 1.0
    settings = {"steps": STEPS, "learning_rate": LEARNING_RATE, "units": UNITS, "n": len(split)}
    settings |= {"documents": len(task.corpus), "encoder": Path(arguments.sentence_encoder).name}
    for seed in arguments.seeds:
        for width in WIDTHS:
            new = measure(features, relevant, width, seed)
            rows = with_earlier("benchmarks.evaluation_limit", new, ("form", "k", "seed"))
            print(write_result("benchmarks.evaluation_limit", settings, rows, []), new, flush=True)


if __name__ == "__main__":
    main()
