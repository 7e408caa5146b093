"""The command line, `rabtriever encode | index | search | ...`. JSON lines in and out, messages on stderr."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoModel
from transformers.utils import logging

from . import GenerativeRerankerModel, RabtrieverModel, __version__
from .retrieval.corpus_vectors import MANIFEST, CorpusVectors, encoder_fingerprint
from .retrieval.documents import DocumentReader
from .retrieval.encoding import chunks, encode_corpus
from .retrieval.search import Searcher
from .retrieval.store import VectorStore
from .retrieval.vector_types import VECTOR_TYPES

BAD_INPUT, INTERRUPTED = 2, 130
EXAMPLES = """\
examples:
  rabtriever encode --model runs/household/student/model --corpus corpus.jsonl --output vectors
  rabtriever index  --vectors vectors --store store
  rabtriever search --model runs/household/student/model --store store --query "In the kitchen: I spilled my drink."
  cat queries.jsonl | rabtriever search --model ... --store store --queries - --top-k 5 --where "room = 'kitchen'"
  rabtriever search --model ... --store store --query "..." --rerank runs/household/teacher/model
  rabtriever rank   --model runs/household/teacher/model --query "..." --documents corpus.jsonl
  rabtriever export --model runs/household/student/model --format sentence-transformers --output towers
  rabtriever info   store

exit status: 0 done, 2 bad input or settings (the message says what is accepted), 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.quiet:
        logging.disable_progress_bar()
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print("rabtriever: interrupted; what is finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our lines has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"rabtriever: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def encode(arguments: argparse.Namespace) -> None:
    """Encodes a corpus into a folder of vectors."""
    documents = DocumentReader(arguments.corpus, arguments.skip_bad)
    settings: dict[str, Any] = {
        "vector_type": arguments.vectors,
        "documents_per_shard": arguments.documents_per_shard,
        "token_budget": arguments.token_budget,
    }
    if arguments.engine == "ray":
        from .retrieval.ray_encoding import encode_corpus_with_ray  # of the extra "ray"

        options = {**settings, "address": arguments.ray_address, **_hub_options(arguments)}
        corpus = encode_corpus_with_ray(arguments.model, documents, arguments.output, arguments.workers, **options)
    else:
        corpus = encode_corpus(_student(arguments), documents, arguments.output, **settings)
    skipped = f", {documents.skipped} bad lines skipped" if documents.skipped else ""
    _say(f"{len(corpus)} documents, {corpus.embedding_dim} x {corpus.vector_type}, in {arguments.output}{skipped}")


def index(arguments: argparse.Namespace) -> None:
    """Puts encoded documents into a store, or takes some out."""
    if arguments.vectors is None and arguments.delete is None and not arguments.approximate:
        raise ValueError("nothing to do; accepted: --vectors FOLDER, --delete FILE, --approximate")
    if arguments.vectors is not None:
        corpus = CorpusVectors(arguments.vectors)
        store = (
            VectorStore(arguments.store)
            if VectorStore.exists(arguments.store)
            else VectorStore.create(arguments.store, corpus.model, corpus.embedding_dim)
        )
        store.add_corpus(corpus)
    else:
        store = VectorStore(arguments.store)
    if arguments.delete is not None:
        text = sys.stdin.read() if arguments.delete == "-" else Path(arguments.delete).read_text()
        _say(f"{store.delete(line.strip() for line in text.splitlines() if line.strip())} documents deleted")
    store.compact()
    if arguments.approximate or store.has_index:
        store.build_index()
    _say(f"{len(store)} documents in {arguments.store}")


def search(arguments: argparse.Namespace) -> None:
    """Answers queries from a store, one line each."""
    if (arguments.query is None) == (arguments.queries is None):
        raise ValueError("accepted: exactly one of --query TEXT and --queries FILE")
    store = VectorStore(arguments.store, precision=arguments.precision)
    reranker = None
    if arguments.rerank is not None:
        reranker = _model(arguments.rerank, arguments)
        if not isinstance(reranker, GenerativeRerankerModel):
            raise ValueError(f"--rerank {arguments.rerank} is no teacher; accepted: a GenerativeRerankerModel")
    searcher = Searcher(_student(arguments), store, reranker)
    queries: Iterable[tuple[str, str]] = (
        [("0", arguments.query)]
        if arguments.queries is None
        else ((document.id, document.text) for document in DocumentReader(arguments.queries, arguments.skip_bad))
    )
    for part in chunks(queries, arguments.batch_size):
        settings = (arguments.top_k, arguments.where, arguments.rerank_depth, arguments.approximate)
        found = searcher.search([text for _, text in part], *settings)
        for (id_, text), hits in zip(part, found, strict=True):
            _write({"id": id_, "query": text, "hits": [asdict(hit) for hit in hits]})


def rank(arguments: argparse.Namespace) -> None:
    """Ranks documents for one query with a teacher or a student, without a store."""
    documents = list(DocumentReader(arguments.documents, arguments.skip_bad))
    if not documents:
        raise ValueError(f"{arguments.documents} holds no documents; accepted: at least one")
    texts = [document.text for document in documents]
    for found in _model(arguments.model, arguments).rank(arguments.query, texts, arguments.top_k):
        _write({**asdict(documents[found["corpus_id"]]), "score": found["score"]})


def export(arguments: argparse.Namespace) -> None:
    """Writes folders that other libraries load without custom code."""
    model: Any = _model(arguments.model, arguments)
    output = Path(arguments.output)
    needed = "GenerativeRerankerModel" if arguments.format == "cross-encoder" else "RabtrieverModel"
    if type(model).__name__ != needed:
        raise ValueError(f"{arguments.model} is a {type(model).__name__}; accepted for this format: {needed}")
    if arguments.format == "onnx":
        from .export.onnx_towers import export_onnx  # of the extra "onnx"

        export_onnx(model, output)
    elif arguments.format == "cross-encoder":
        from .export import export_cross_encoder  # of the extra "export"

        export_cross_encoder(model, output)
    else:
        from .export import export_sentence_transformers, server_limits

        export_sentence_transformers(model, output)
        for side in ("query", "document"):
            for server, reasons in server_limits(output / side).items():
                _say(f"{side} tower in {server}: " + ("; ".join(reasons) or "nothing in the way (not run here)"))
    _say(f"written to {output}")


def info(arguments: argparse.Namespace) -> None:
    """Says what a folder holds: a model, encoded documents or a store."""
    path = Path(arguments.path)
    if VectorStore.exists(path):
        store = VectorStore(path)
        _write({"kind": "store", "documents": len(store), "embedding_dim": store.embedding_dim, "model": store.model})
    elif (path / MANIFEST).is_file():
        _write({"kind": "vectors", **json.loads((path / MANIFEST).read_text())})
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rabtriever",
        description="Search with Rabtriever: encode documents once, answer a query with one pass.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="encode | index | search | rank | export | info"
    )

    def command(run: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            run.__name__,
            help=run.__doc__,
            description=run.__doc__,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("--quiet", action="store_true", help="no progress bars")
        return added

    added = command(encode)
    _model_flags(added, "the student: folder or Hub id")
    added.add_argument("--corpus", required=True, help=".jsonl or .parquet, - for standard input, hub:<data set>")
    added.add_argument("--output", required=True, help="folder for the vectors; called again, it goes on")
    added.add_argument("--vectors", default="float32", choices=VECTOR_TYPES, help="type of the numbers")
    added.add_argument("--documents-per-shard", type=int, default=8192, help="documents per file")
    added.add_argument("--token-budget", type=int, help="padded tokens per forward pass; default fits the device")
    added.add_argument("--engine", default="local", choices=["local", "ray"], help="ray: many workers")
    added.add_argument("--workers", type=int, default=1, help="with --engine ray: actors")
    added.add_argument("--ray-address", help="with --engine ray: a running cluster; default: a local one")

    added = command(index)
    added.add_argument("--store", required=True, help="folder of the store; made if missing")
    added.add_argument("--vectors", help="folder rabtriever encode wrote; ids that are there are replaced")
    added.add_argument("--delete", help="file with ids to delete, one per line; - for standard input")
    added.add_argument(
        "--approximate", action="store_true", help="build an approximate index; one that is there is kept up to date"
    )

    added = command(search)
    _model_flags(added, "the student: folder or Hub id")
    added.add_argument("--store", required=True, help="folder of the store")
    added.add_argument("--query", help="one query")
    added.add_argument("--queries", help="many: JSON lines with id and text; - for standard input")
    added.add_argument("--top-k", type=int, default=10, help="documents per query")
    added.add_argument("--where", help="SQL condition on id, text and metadata: \"lang = 'en' AND year > 2020\"")
    added.add_argument("--approximate", action="store_true", help="ask the approximate index")
    added.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"], help="of the scan")
    added.add_argument("--rerank", help="a teacher that judges the best again: folder or Hub id")
    added.add_argument("--rerank-depth", type=int, default=50, help="how many it judges per query")
    added.add_argument("--batch-size", type=int, default=64, help="queries searched at once")

    added = command(rank)
    _model_flags(added, "teacher or student: folder or Hub id")
    added.add_argument("--query", required=True, help="the query")
    added.add_argument("--documents", required=True, help="as --corpus of encode")
    added.add_argument("--top-k", type=int, help="documents to print; default: all")

    added = command(export)
    _model_flags(added, "student or teacher: folder or Hub id")
    added.add_argument("--output", required=True, help="a new folder")
    added.add_argument(
        "--format",
        required=True,
        choices=["sentence-transformers", "onnx", "cross-encoder"],
        help="a student as two towers and both in one folder, or as two graphs; a teacher as a cross-encoder",
    )

    added = command(info)
    added.add_argument("path", help="a model, a folder of vectors, or a store")
    _loading_flags(added)
    for name in ("encode", "search", "rank"):
        commands.choices[name].add_argument(
            "--skip-bad", action="store_true", help="count lines that are no document instead of stopping"
        )
    return parser


def _model_flags(parser: argparse.ArgumentParser, help_: str) -> None:
    parser.add_argument("--model", required=True, help=help_)
    _loading_flags(parser)


def _loading_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub model")
    parser.add_argument("--dtype", default="auto", help="type of the weights: auto (as saved), float32, bfloat16, ...")
    parser.add_argument("--device", default="cpu", help="where models run: cpu, cuda, ...")


def _hub_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"dtype": arguments.dtype, "revision": arguments.revision}


def _model(path: str, arguments: argparse.Namespace) -> Any:
    model = AutoModel.from_pretrained(path, **_hub_options(arguments))
    if not isinstance(model, (RabtrieverModel, GenerativeRerankerModel)):
        raise ValueError(f"{path} is a {type(model).__name__}; accepted: RabtrieverModel, GenerativeRerankerModel")
    return model.eval().to(arguments.device)


def _student(arguments: argparse.Namespace) -> RabtrieverModel:
    model = _model(arguments.model, arguments)
    if not isinstance(model, RabtrieverModel):
        raise ValueError(f"--model {arguments.model} is a teacher; accepted: a student (RabtrieverModel)")
    return model


def _write(row: dict[str, Any]) -> None:
    print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


def _say(message: str) -> None:
    print(f"rabtriever: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
