"""The commands that are not stages: they read and write JSON lines. A command imports what it needs when it runs."""

import argparse
import json
import sys
import warnings
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any


def encode(arguments: argparse.Namespace) -> None:
    """Encodes a corpus into a folder of vectors."""
    from modeling_rabtriever.retrieval import DocumentReader, encode_corpus

    documents = DocumentReader(arguments.corpus, arguments.skip_bad)
    settings: dict[str, Any] = {
        "vector_type": arguments.vectors,
        "documents_per_shard": arguments.documents_per_shard,
        "token_budget": arguments.token_budget,
    }
    if arguments.engine == "ray":
        from modeling_rabtriever.retrieval.ray_encoding import encode_corpus_with_ray

        options = {**settings, "address": arguments.ray_address}
        options |= {"dtype": arguments.dtype, "revision": arguments.revision}
        corpus = encode_corpus_with_ray(arguments.model, documents, arguments.output, arguments.workers, **options)
    else:
        corpus = encode_corpus(_student(arguments), documents, arguments.output, **settings)
    skipped = f", {documents.skipped} bad lines skipped" if documents.skipped else ""
    say(f"{len(corpus)} documents, {corpus.embedding_dim} x {corpus.vector_type}, in {arguments.output}{skipped}")


def index(arguments: argparse.Namespace) -> None:
    """Adds encoded documents to a store, or deletes some."""
    from modeling_rabtriever.retrieval import CorpusVectors, VectorStore
    from modeling_rabtriever.retrieval.id_files import read_ids

    if arguments.dim is not None and arguments.vectors is None:
        raise ValueError("--dim is given without --vectors, whose axes it needs; accepted: both, or neither")
    if arguments.recall is not None and not arguments.approximate:
        raise ValueError("--recall is given without --approximate; accepted: both, or neither")
    if arguments.vectors is None and arguments.delete is None and not (arguments.approximate or arguments.words):
        raise ValueError("nothing to do; accepted: --vectors FOLDER, --delete FILE, --words, --approximate")
    ids = None if arguments.delete is None else read_ids(arguments.delete)
    if arguments.vectors is not None:
        store = VectorStore.of_corpus(arguments.store, CorpusVectors(arguments.vectors), arguments.dim)
    else:
        store = VectorStore(arguments.store)
    if ids is not None:
        deleted = store.delete(ids)
        say(f"{deleted.documents} documents deleted")
        if deleted.missing:
            more = ", ..." if len(deleted.missing) > 5 else ""
            say(f"{len(deleted.missing)} ids not found: {', '.join(map(repr, deleted.missing[:5]))}{more}")
    store.compact()
    if arguments.words or (store.has_words and len(store)):
        store.build_words()
    if arguments.approximate or (store.has_index and len(store)):
        say(f"approximate index: {store.build_index(arguments.recall)}")
    say(f"{len(store)} documents in {arguments.store}")
    _warn_of_unfinished(store)


def search(arguments: argparse.Namespace) -> None:
    """Searches a store and prints one line per query."""
    from modeling_rabtriever import RabtrieverModel
    from modeling_rabtriever.retrieval import DocumentReader, Searcher, VectorStore
    from modeling_rabtriever.retrieval.encoding import chunks

    store = VectorStore(arguments.store, precision=arguments.precision)
    _warn_of_unfinished(store)
    reranker = _model_or_served(arguments.rerank, "--rerank", arguments)
    if isinstance(reranker, RabtrieverModel):
        raise ValueError(f"--rerank {arguments.rerank} is not a teacher; accepted: a GenerativeRerankerModel")
    searcher = Searcher(_student(arguments), store, reranker, arguments.hybrid)
    queries: Iterable[tuple[str, str]]
    if arguments.queries is None:
        queries = [("0", arguments.query)]
    else:
        reader = DocumentReader(arguments.queries, arguments.skip_bad)
        queries = ((document.id, document.text) for document in reader)
    for part in chunks(queries, arguments.batch_size):
        settings = (arguments.top_k, arguments.where, arguments.rerank_depth, arguments.approximate)
        found = searcher.search([text for _, text in part], *settings)
        for (id_, text), hits in zip(part, found, strict=True):
            _write({"id": id_, "query": text, "hits": [asdict(hit) for hit in hits]})


def rank(arguments: argparse.Namespace) -> None:
    """Ranks documents for one query with a teacher or a student, without a store."""
    from modeling_rabtriever.retrieval import DocumentReader

    documents = list(DocumentReader(arguments.documents, arguments.skip_bad))
    if not documents:
        raise ValueError(f"{arguments.documents} holds no documents; accepted: at least one")
    texts = [document.text for document in documents]
    for found in _model_or_served(arguments.model, "--model", arguments).rank(arguments.query, texts, arguments.top_k):
        _write({**asdict(documents[found["corpus_id"]]), "score": found["score"]})


def export(arguments: argparse.Namespace) -> None:
    """Writes folders that other libraries load without custom code, and says how engines serve them."""
    from modeling_rabtriever.export import (
        cross_encoder_engines,
        engines_text,
        export_cross_encoder,
        export_sentence_transformers,
        graph_engines,
        pair_limits,
        tower_engines,
    )

    if (arguments.dim is None) != (arguments.axes is None):
        raise ValueError("accepted: --dim and --axes together, or neither")
    model: Any = _model(arguments.model, arguments)
    output = Path(arguments.output)
    needed = "GenerativeRerankerModel" if arguments.format == "cross-encoder" else "RabtrieverModel"
    if type(model).__name__ != needed:
        raise ValueError(f"{arguments.model} is a {type(model).__name__}; accepted for this format: {needed}")
    axes = _axes(model, arguments)
    if arguments.format == "onnx":
        from modeling_rabtriever.export.onnx_towers import export_onnx

        export_onnx(model, output, axes)
        for side in ("query", "document"):
            say(engines_text(f"{side} tower", graph_engines(output / side)))
    elif arguments.format == "cross-encoder":
        export_cross_encoder(model, output)
        say(pair_limits(model))
        say(engines_text("cross-encoder", cross_encoder_engines(output)))
    else:
        export_sentence_transformers(model, output, axes)
        for side in ("query", "document"):
            say(engines_text(f"{side} tower", tower_engines(output / side)))
    say(f"written to {output}")


def _axes(model: Any, arguments: argparse.Namespace) -> Any:
    """The axes of shorter vectors, if an export is to have them."""
    if arguments.dim is None:
        return None
    if arguments.format == "cross-encoder":
        raise ValueError("--dim is given with --format cross-encoder, which has no vectors; accepted: a student")
    from modeling_rabtriever.identity import encoder_fingerprint
    from modeling_rabtriever.retrieval.found_axes import found_axes

    return found_axes(arguments.axes, encoder_fingerprint(model), arguments.dim)


def demo(arguments: argparse.Namespace) -> None:
    """Serves a page that compares students with BM25 and their teachers, or writes that page as a Hub Space."""
    from modeling_rabtriever.demo import read_collections, serve, write_space

    if arguments.space is None:
        collections = read_collections(arguments.collections, arguments.dtype, arguments.device)
        serve(collections, arguments.host or "127.0.0.1", arguments.port)
        return
    if (arguments.host, arguments.port, arguments.device) != (None, None, "cpu"):
        raise ValueError(
            "--host, --port or --device is given with --space, which serves nothing; accepted: none of them"
        )
    write_space(arguments.space, arguments.collections, arguments.dtype)
    say(f"written to {arguments.space}; there: python app.py")


def info(arguments: argparse.Namespace) -> None:
    """Describes a folder: a model, encoded documents or a store."""
    from modeling_rabtriever import RabtrieverModel
    from modeling_rabtriever.files import read_record
    from modeling_rabtriever.identity import encoder_fingerprint

    path = Path(arguments.path)
    if (path / "documents.lance").is_dir():
        from modeling_rabtriever.retrieval import VectorStore

        store = VectorStore(path)
        sizes = {"documents": len(store), "embedding_dim": store.embedding_dim, "dim": store.dim}
        unfinished = [asdict(corpus) for corpus in store.unfinished]
        indexes = {"words": store.has_words, "approximate": None if store.tuning is None else asdict(store.tuning)}
        _write({"kind": "store", **sizes, **indexes, "model": store.model, "unfinished": unfinished})
    elif (path / "encoding.json").is_file():
        record = read_record(path / "encoding.json")
        _write({"kind": "vectors", **{name: value for name, value in record.items() if name != "shards"}})
    else:
        model = _model(arguments.path, arguments)
        found = {
            "kind": type(model).__name__,
            "parameters": model.num_parameters(),
            "prompt": model.processor.to_dict(),
        }
        if isinstance(model, RabtrieverModel):
            found |= {"embedding_dim": model.config.embedding_dim, "model": encoder_fingerprint(model)}
        _write(found)


def _model(path: str, arguments: argparse.Namespace) -> Any:
    from modeling_rabtriever.loading import load_model

    return load_model(path, arguments.dtype, arguments.device, arguments.revision)


def _model_or_served(name: str | None, option: str, arguments: argparse.Namespace) -> Any:
    """The model in a folder or on the Hub, or the teacher at an address; `None` is none."""
    from modeling_rabtriever.distillation.student_arguments import ServedTeacherArguments
    from modeling_rabtriever.reranking.prompts import PromptArguments, SourceArguments
    from modeling_rabtriever.served.address import is_address
    from modeling_rabtriever.stages.served import check_unserved, open_teacher

    def settings(kind: type[Any]) -> Any:
        names = [setting.name for setting in fields(kind) if setting.name in arguments]
        return kind(**{name: getattr(arguments, name) for name in names})

    given = (settings(ServedTeacherArguments), settings(SourceArguments), settings(PromptArguments))
    if not is_address(name):
        check_unserved(*given, option)
        return None if name is None else _model(name, arguments)
    server, source, prompt = given
    return open_teacher(replace(server, teacher=name), source, prompt, task="")


def _student(arguments: argparse.Namespace) -> Any:
    from modeling_rabtriever import RabtrieverModel

    model = _model(arguments.model, arguments)
    if not isinstance(model, RabtrieverModel):
        raise ValueError(f"--model {arguments.model} is a teacher; accepted: a student (RabtrieverModel)")
    return model


def _warn_of_unfinished(store: Any) -> None:
    from modeling_rabtriever.retrieval import UnfinishedStoreWarning

    warnings.simplefilter("ignore", UnfinishedStoreWarning)  # printed here instead
    for corpus in store.unfinished:
        say(f"warning: {corpus.warning(store.folder)}")


def _write(row: dict[str, Any]) -> None:
    print(json.dumps(row, ensure_ascii=False, allow_nan=False, default=str), flush=True)


def say(message: str) -> None:
    """Prints a message for the user, to stderr."""
    print(f"rabtriever: {message}", file=sys.stderr)


COMMANDS = {command.__name__: command for command in (encode, index, search, rank, export, demo, info)}
