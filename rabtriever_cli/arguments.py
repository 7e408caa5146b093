"""The arguments of the `rabtriever` commands. This imports nothing that takes time, as help and mistakes are common."""

import argparse
import math
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from .stages import Stage

DTYPES = ("auto", "float32", "bfloat16", "float16")  # of `modeling_rabtriever.loading`
VECTOR_TYPES = ("float32", "float16", "int8")  # of `modeling_rabtriever.retrieval`

EXAMPLES = """\
examples:
  rabtriever train    --config household --data path/to/household --output_dir runs/mine
  rabtriever distill  --config household --data path/to/household --output_dir runs/mine
  rabtriever evaluate --config household --data path/to/household --output_dir runs/mine
  rabtriever encode --model runs/household/student/model --corpus corpus.jsonl --output vectors
  rabtriever index  --vectors vectors --store store
  rabtriever search --model runs/household/student/model --store store --query "In the kitchen: I spilled my drink."
  cat queries.jsonl | rabtriever search --model ... --store store --queries - --top-k 5 --where "text LIKE '%kitchen'"
  rabtriever search --model ... --store store --query "..." --rerank runs/household/teacher/model
  rabtriever search --model ... --store store --query "..." --rerank http://localhost:8000/v1 \\
    --model-name-or-path runs/mine/student/teacher_prompt
  rabtriever index  --store store --words
  rabtriever search --model ... --store store --query "..." --hybrid
  rabtriever rank   --model runs/household/teacher/model --query "..." --documents corpus.jsonl
  rabtriever export --model runs/household/student/model --format sentence-transformers --output towers
  rabtriever demo   collections.yaml
  rabtriever info   store

exit status: 0 done, 2 bad input or settings (the message says what is accepted), 130 interrupted.
"""


def _version() -> str:
    try:
        return metadata.version("modeling-rabtriever")
    except metadata.PackageNotFoundError:  # a clone that is on the path but not installed
        return "unknown: not installed"


def parser(
    commands: Mapping[str, Callable[[argparse.Namespace], None]], stages: Mapping[str, Stage]
) -> argparse.ArgumentParser:
    """The command line's parser. The namespace it returns has the command's function as `run`.

    A function's docstring is its command's help. Stages parse their own arguments, and are only listed here.
    """
    made = argparse.ArgumentParser(
        prog="rabtriever",
        description="Rabtriever: distil a reranker, encode documents once, answer a query by inner products.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=_version())
    groups = made.add_subparsers(title="commands", required=True, metavar=" | ".join([*stages, *commands]))
    for name, stage in stages.items():
        groups.add_parser(name, help=stage.about)

    def command(name: str) -> argparse.ArgumentParser:
        added = groups.add_parser(
            name,
            help=commands[name].__doc__,
            description=commands[name].__doc__,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=commands[name])
        added.add_argument("--quiet", action="store_true", help="no progress bars")
        return added

    added = command("encode")
    _model_flags(added, "the student: folder or Hub id")
    added.add_argument("--corpus", required=True, help=".jsonl or .parquet, - for standard input, hub:<data set>")
    added.add_argument("--output", required=True, help="folder for the vectors; a second call resumes")
    added.add_argument("--vectors", default="float32", choices=VECTOR_TYPES, help="type of the numbers")
    added.add_argument("--documents-per-shard", type=positive, default=8192, help="documents per file")
    added.add_argument("--token-budget", type=positive, help="padded tokens per forward pass; default fits the device")
    added.add_argument("--engine", default="local", choices=["local", "ray"], help="ray: many workers")
    added.add_argument("--workers", type=positive, default=1, help="with --engine ray: actors")
    added.add_argument("--ray-address", help="with --engine ray: a running cluster; default: a local one")

    added = command("index")
    added.add_argument("--store", required=True, help="folder of the store; created if missing")
    added.add_argument("--vectors", help="folder that rabtriever encode wrote; existing ids are replaced")
    added.add_argument(
        "--dim",
        type=positive,
        help="with --vectors, for a new store: numbers to keep of each vector, along the documents' principal axes; "
        "search rotates queries by itself. Default: the vectors as they are",
    )
    added.add_argument(
        "--delete",
        help="file of ids to delete, as encoded, one per line; in JSON lines, strings or objects with id; - for "
        "standard input",
    )
    added.add_argument(
        "--words",
        action="store_true",
        help="build an index of words for search --hybrid; an existing one is kept up to date",
    )
    added.add_argument(
        "--approximate", action="store_true", help="build an approximate index; an existing one is kept up to date"
    )
    added.add_argument(
        "--recall",
        type=recall,
        help="with --approximate: the share of the exact best ten documents to find, measured on stored vectors; "
        "refused if half of the index does not reach it. Default: 0.95, or that of the existing index",
    )

    added = command("search")
    _model_flags(added, "the student: folder or Hub id")
    added.add_argument("--store", required=True, help="folder of the store")
    asked = added.add_mutually_exclusive_group(required=True)
    asked.add_argument("--query", help="one query")
    asked.add_argument("--queries", help="many queries: JSON lines with id and text; - for standard input")
    added.add_argument("--top-k", type=positive, default=10, help="documents per query")
    added.add_argument("--where", help="SQL condition on id, text and metadata: \"lang = 'en' AND year > 2020\"")
    added.add_argument(
        "--hybrid",
        type=share,
        nargs="?",
        const=True,
        default=False,
        metavar="SHARE",
        help="join the student's ranking with one by words (BM25) by reciprocal rank fusion; SHARE is the words' "
        "weight, default 0.5",
    )
    added.add_argument("--approximate", action="store_true", help="search the approximate index")
    added.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16", "float16"], help="of exact search"
    )
    added.add_argument(
        "--rerank",
        help="a teacher that reranks the best documents: folder or Hub id, or the address of a server that runs it",
    )
    added.add_argument("--rerank-depth", type=positive, default=50, help="documents it reranks per query")
    added.add_argument("--batch-size", type=positive, default=64, help="queries searched at once")

    added = command("rank")
    _model_flags(added, "teacher or student: folder or Hub id; or the address of a server that runs a teacher")
    added.add_argument("--query", required=True, help="the query")
    added.add_argument("--documents", required=True, help="same formats as encode --corpus")
    added.add_argument("--top-k", type=positive, help="documents to print; default: all")

    added = command("export")
    _model_flags(added, "student or teacher: folder or Hub id")
    added.add_argument("--output", required=True, help="a new folder")
    added.add_argument(
        "--format",
        required=True,
        choices=["sentence-transformers", "onnx", "cross-encoder"],
        help="a student as two towers and both in one folder, or as two graphs; a teacher as a cross-encoder",
    )

    added.add_argument(
        "--dim",
        type=positive,
        help="of a student: numbers to keep of each vector, along the documents' principal axes; with --axes",
    )
    added.add_argument(
        "--axes",
        help="with --dim: a store that index --dim made, for towers that fit it, or a folder that encode wrote",
    )

    added = command("demo")
    added.add_argument(
        "collections",
        nargs="?",
        help="YAML file of what visitors choose from: name -> model, corpus, and perhaps teacher, examples, revision. "
        "Default: the household models that come with the package",
    )
    added.add_argument("--host", help="address to listen on; default: 127.0.0.1, this machine only")
    added.add_argument("--port", type=int, help="default: the first free port from 7860")
    added.add_argument("--space", help="write the page as a Hub Space into this new folder instead of serving it")
    _weights_flags(added)

    added = command("info")
    added.add_argument("path", help="a model, a folder of vectors, or a store")
    _loading_flags(added)
    for name in ("search", "rank"):
        _server_flags(groups.choices[name])
    for name in ("encode", "search", "rank"):
        groups.choices[name].add_argument(
            "--skip-bad", action="store_true", help="skip and count lines that are not documents, instead of stopping"
        )
    return made


def positive(text: str) -> int:
    """A whole number of at least 1 and at most 18 digits from the command line."""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} given; accepted: a whole number of at least 1 and at most 18 digits"
        )
    return int(text)


def recall(text: str) -> float:
    """A number above 0, at most 1, from the command line."""
    return _number(text, "a number above 0, at most 1", lambda found: 0 < found <= 1)


def share(text: str) -> float:
    """A number between 0 and 1 from the command line."""
    return _number(text, "a number between 0 and 1", lambda found: 0 < found < 1)


def _number(text: str, accepted: str, fits: Callable[[float], bool]) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not fits(found):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} given; accepted: {accepted}")
    return found


def _model_flags(parser: argparse.ArgumentParser, help_: str) -> None:
    parser.add_argument("--model", required=True, help=help_)
    _loading_flags(parser)


def _loading_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub model")
    _weights_flags(parser)


def _server_flags(parser: argparse.ArgumentParser) -> None:
    """The options of `distill` that say how a teacher behind a server reads, in both spellings."""
    group = parser.add_argument_group("a teacher behind a server", "as for distill, whose help has the defaults")

    def option(name: str, words: str, **settings: Any) -> None:
        names = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        group.add_argument(*names, default=argparse.SUPPRESS, help=words, **settings)

    option("served-model", "name of the teacher at the server, if it has several models")
    option("requests-in-flight", "requests to the server at once, each with up to 16 pairs", type=positive)
    option("model-name-or-path", "folder or Hub id of the teacher's tokenizer, or of its whole prompt")
    option("model-revision", "branch, tag or commit of that on the Hub")
    option("true-answer", "answer 'relevant': one token of the vocabulary")
    option("false-answer", "answer 'not relevant': one token of the vocabulary")
    option("instruction", "the question for the model")
    option("document-template", "prompt prefix; holds {document} once")
    option("query-template", "prompt suffix; holds {query} once")
    option("max-document-length", "tokens kept of a document", type=positive)
    option("max-query-length", "tokens kept of a query", type=positive)
    option("query-truncation-side", "side on which an overlong query is cut", choices=["left", "right"])


def _weights_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="type of the weights; auto: as saved")
    parser.add_argument("--device", default="cpu", help="where models run: cpu, cuda, ...")
