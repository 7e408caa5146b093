"""Systems that rank, with one interface: from queries to scores of the whole corpus."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import GenerativeRerankerModel, RabtrieverModel
from ..errors import fault, refusing
from ..loading import load_model
from ..machine import fastest_device
from ..modeling_checks import optional_file
from ..modeling_prefix_cache import DocumentPrefixes
from ..served.teacher import ServedTeacher
from ..tasks.beir import RetrievalTask
from .baselines import BM25, LabelPrior, TfidfLogisticRegression
from .labels import STUDENT, TEACHER

KEPT_TOKENS = 131_072  # attention states of at most this many document tokens are kept between calls
NO_PICKLE = {"use_safetensors": True}
LABELS_REPEAT = 2  # mean number of queries per relevant document from which a classifier makes sense


@dataclass(frozen=True)
class System:
    """A ranker under evaluation.

    Args:
        name: in tables.
        score: queries -> `(n, m)` fp32 scores of the corpus, on the CPU.
        latency_queries: number of single queries to measure latency on; 0 does not measure it.
        score_pairs: queries and `(n, c)` corpus rows -> `(n, c)` scores, for systems that read every pair; others score
            the corpus and keep the scores of these rows.
        vector_bytes: size of the corpus vectors, for systems that have them.
        model: for systems that are models.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.evaluation import System
        >>> def longest_first(queries):  # of a corpus of three documents
        ...     return torch.tensor([[12.0, 16.0, 9.0]]).expand(len(queries), 3)
        >>> System("longest document", longest_first).score(["I spilled my drink"]).shape
        torch.Size([1, 3])
    """

    name: str
    score: Callable[[Sequence[str]], Tensor]
    latency_queries: int = 20
    score_pairs: Callable[[Sequence[str], Tensor], Tensor] | None = None
    vector_bytes: int | None = None
    model: Any = None

    def candidate_scores(self, queries: Sequence[str], rows: Tensor, corpus_size: int) -> tuple[Tensor, Tensor | None]:
        """Scores of each query's candidates, minus infinity for the rest of the corpus.

        Args:
            queries: `n` texts.
            rows: `(n, c)` corpus rows.
            corpus_size: `m`.

        Returns:
            `(n, m)` fp32; and `(n, m)` scores of the whole corpus, from a system that scores it anyway.
        """
        if self.score_pairs is not None:
            whole, scores = None, self.score_pairs(queries, rows)
        else:
            whole = self.score(queries)
            scores = whole.gather(1, rows)
        unranked = torch.full((len(rows), corpus_size), -torch.inf)
        return unranked.scatter(1, rows, scores.float()), whole

    def milliseconds_per_query(self, queries: Sequence[str], rows: Tensor | None = None) -> float | None:
        """Median wall time of a single query, from text to scores, of the corpus or of `rows` `(n, c)`."""
        if not self.latency_queries:
            return None
        times = []
        for place, query in enumerate(queries[: self.latency_queries + 1]):  # the first is a warm-up
            start = time.perf_counter()
            if rows is not None and self.score_pairs is not None:
                self.score_pairs([query], rows[place : place + 1])
            else:
                self.score([query])
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times[1:] or times)


def baselines(task: RetrievalTask, train_split: str) -> list[System]:
    """BM25; with a training split the label prior too, and if its labels repeat and can be learnt, a classifier."""
    size, found = len(task.corpus), [System("BM25", BM25(task.corpus))]
    if train_split not in task.splits:
        return found
    train = task.splits[train_split]
    found.insert(0, System("label prior", LabelPrior(train.relevant, size)))
    labels = {row for relevant in train.relevant for row in relevant}
    if train.judgements >= LABELS_REPEAT * len(labels):
        name = "TF-IDF + logistic regression"
        try:
            found.append(System(name, TfidfLogisticRegression(train.queries, train.relevant, size)))
        except ValueError as error:
            print(f"skipped the baseline {name}: {fault(error)}")
    return found


def reranker_system(reranker: GenerativeRerankerModel, corpus: Sequence[str], name: str = TEACHER) -> System:
    """The teacher on the whole corpus. Attention states of documents are kept if `KEPT_TOKENS` allows it.

    Examples:
        >>> from modeling_rabtriever import GenerativeRerankerModel, example
        >>> from modeling_rabtriever.evaluation import reranker_system
        >>> teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
        >>> system = reranker_system(teacher, ["bring the lantern", "bring the sponge"])
        >>> system.score(["I spilled my drink"]).argmax(-1)
        tensor([1])
    """

    @functools.cache
    def documents() -> Sequence[str] | DocumentPrefixes:
        tokens = sum(map(len, reranker.processor.document_ids(corpus)))
        return reranker.prefill(corpus) if reranker.reuses_prefixes and tokens <= KEPT_TOKENS else corpus

    def score(queries: Sequence[str]) -> Tensor:
        return reranker.score(queries, documents()).cpu()

    def score_pairs(queries: Sequence[str], rows: Tensor) -> Tensor:
        pairs = [(query, corpus[row]) for query, own in zip(queries, rows.tolist(), strict=True) for row in own]
        return reranker.predict(pairs).view(rows.shape).cpu()

    return System(name, score, latency_queries=5, score_pairs=score_pairs, model=reranker)


def served_system(teacher: ServedTeacher, corpus: Sequence[str]) -> System:
    """A teacher behind a server on the whole corpus; its latency includes the network's."""

    def score(queries: Sequence[str]) -> Tensor:
        pairs = [(query, row) for row in range(len(corpus)) for query in range(len(queries))]
        return teacher.score_pairs(queries, corpus, pairs).view(len(corpus), len(queries)).T

    def score_pairs(queries: Sequence[str], rows: Tensor) -> Tensor:
        pairs = [(query, row) for query, own in enumerate(rows.tolist()) for row in own]
        return teacher.score_pairs(queries, corpus, pairs).view(rows.shape)

    return System(TEACHER, score, latency_queries=5, score_pairs=score_pairs, model=teacher)


def rabtriever_system(student: RabtrieverModel, corpus: Sequence[str], name: str = STUDENT) -> System:
    """The student on the whole corpus: encodes documents now, and queries when they arrive.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.evaluation import rabtriever_system
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> system = rabtriever_system(student, ["bring the lantern", "bring the sponge"])
        >>> system.score(["I spilled my drink"]).argmax(-1)
        tensor([1])
    """
    documents = student.encode_document(corpus)

    def score(queries: Sequence[str]) -> Tensor:
        return student.similarity(student.encode_query(queries), documents).cpu()

    return System(name, score, vector_bytes=documents.nbytes, model=student)


def sentence_encoder_system(model: Any, corpus: Sequence[str], name: str) -> System:
    """A sentence-transformers bi-encoder on the whole corpus, with its own prompts and similarity."""
    options: dict[str, Any] = {"convert_to_tensor": True, "show_progress_bar": False}
    documents = model.encode_document(list(corpus), **options)

    def score(queries: Sequence[str]) -> Tensor:
        found: Tensor = model.similarity(model.encode_query(list(queries), **options), documents)
        return found.float().cpu()

    return System(name, score, vector_bytes=documents.nbytes, model=model)


def model_system(model: Any, corpus: Sequence[str]) -> System:
    """A model on the whole corpus: a reranker, here or behind a server, a Rabtriever, or a bi-encoder."""
    if isinstance(model, RabtrieverModel):
        return rabtriever_system(model, corpus)
    if isinstance(model, ServedTeacher):
        return served_system(model, corpus)
    if isinstance(model, GenerativeRerankerModel):
        return reranker_system(model, corpus)
    return sentence_encoder_system(model, corpus, type(model).__name__)


def name_and_path(given: str) -> tuple[str | None, str]:
    """Splits `NAME=PATH`; a path alone has no name."""
    name, equals, path = given.partition("=")
    return (name, path) if equals and not Path(given).exists() else (None, given)


def load_system(given: str, corpus: Sequence[str], dtype: str = "auto", trust_remote_code: bool = False) -> System:
    """Loads a reranker, a Rabtriever, or a bi-encoder of sentence-transformers (extra "export").

    By default a reranker is named teacher, a Rabtriever is named Rabtriever, and another model is named after its
    folder or repository.

    Args:
        given: folder or Hub id, optionally after `NAME=`.
        corpus: the documents it ranks.
        dtype: of the weights; `auto` takes them as saved.
        trust_remote_code: whether code from the repository may run.

    Raises:
        ValueError: it is another kind of model, or the name is teacher or Rabtriever and the model is not one.

    Examples:
        >>> from modeling_rabtriever import example
        >>> from modeling_rabtriever.evaluation import load_system
        >>> system = load_system(f"small={example('household')}", ["bring the lantern", "bring the sponge"])
        >>> system.name, system.score(["I spilled my drink"]).argmax().item()
        ('small', 1)
    """
    name, path = name_and_path(given)
    system = _load(path, corpus, dtype, trust_remote_code)
    if name is None or name == system.name:
        return system
    if name in (TEACHER, STUDENT):
        raise ValueError(f"{path} is named {name} but is a {type(system.model).__name__}; accepted: another name")
    return replace(system, name=name)


def _load(path: str, corpus: Sequence[str], dtype: str, trust_remote_code: bool) -> System:
    if is_sentence_transformer(path):
        from sentence_transformers import SentenceTransformer  # of the extra "export"

        with refusing(f"{path} cannot be loaded", "a bi-encoder of sentence-transformers with safetensors weights"):
            weights = {"dtype": dtype, **NO_PICKLE}
            encoder = SentenceTransformer(path, model_kwargs=weights, trust_remote_code=trust_remote_code)
        return sentence_encoder_system(encoder, corpus, _name(path))
    return model_system(load_model(path, dtype, fastest_device(), trust_remote_code=trust_remote_code), corpus)


def public_encoder(name: str, corpus: Sequence[str]) -> System | None:
    """A public sentence encoder as a baseline, if its weights are on this machine; downloads nothing."""
    try:
        from sentence_transformers import SentenceTransformer  # of the extra "export"

        encoder = SentenceTransformer(name, local_files_only=True, model_kwargs=NO_PICKLE)
    except ImportError:
        print(f"skipped the baseline {name}: sentence-transformers is not installed")
        return None
    except (OSError, ValueError):
        print(f"skipped the baseline {name}: not on this machine; 'hf download {name}' brings it")
        return None
    return sentence_encoder_system(encoder, corpus, _name(name))


def _name(path: str) -> str:
    """The last part of a folder or Hub id that is not `model`."""
    parts = [part for part in Path(path).parts if part != "model"]
    return parts[-1] if parts else path


def is_sentence_transformer(path: str) -> bool:
    """Whether the folder or repository is a sentence-transformers model; if offline, reads the cache.

    Raises:
        ValueError: there is no such folder, and the Hub has no such repository for this user.
    """
    folder = Path(path)
    if folder.is_dir():
        return (folder / "modules.json").is_file()
    try:
        found = optional_file(path, "modules.json", {})
    except OSError as error:
        raise ValueError(f"model is {path!r}; accepted: a folder that is there, or a Hub id ({error})") from error
    return found is not None
