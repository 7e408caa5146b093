"""The command line, `rabtriever train | distill | ... | encode | index | search | ...`. Messages go to stderr.

A package of its own: importing `modeling_rabtriever` loads torch and registers its classes with transformers, which
takes seconds. The list of commands, the version, and help and mistakes in options of `commands` come without that. A
command imports what it needs when it runs, so it only needs its own extra.

The commands that train and evaluate are the stages of `modeling_rabtriever.stages`, which parse their own options, so
their help imports the library.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from .arguments import parser
from .commands import COMMANDS, say
from .stages import STAGES

BAD_INPUT, INTERRUPTED = 2, 130
# Packages that a plain installation does not include.
OPTIONAL = (
    "accelerate", "bm25s", "datasets", "faiss", "filelock", "gradio", "httpx2", "jinja2", "lancedb", "matplotlib",
    "numpy", "onnx", "onnxruntime", "onnxscript", "peft", "pyarrow", "ray", "scipy", "sentence_transformers", "sklearn",
    "tenacity", "trl",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in STAGES:
        name, *options = given
        stage = STAGES[name]
        return _status(name, lambda: _run(_stage_main(stage.module), options), lambda _: stage.extra)
    arguments = parser(COMMANDS, STAGES).parse_args(given)
    return _status(arguments.run.__name__, lambda: _run(arguments.run, arguments), partial(_extra, arguments))


def _run(command: Callable[[Any], Any], given: Any) -> None:
    from modeling_rabtriever.progress import lines_in_logs

    if getattr(given, "quiet", False):
        from transformers.utils import logging

        logging.disable_progress_bar()
    lines_in_logs()(command)(given)


def _status(command: str, run: Callable[[], Any], extra: Callable[[str], str]) -> int:
    """Runs a command and returns its exit status. Bad input gives a one-line message, not a traceback.

    `extra` tells, for a missing package, which extra installs everything that the command needs.
    """
    try:
        run()
    except KeyboardInterrupt:
        print("rabtriever: interrupted; finished work is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL:
            raise
        say(
            f"{command} needs {package}, which is not installed; accepted: "
            f"pip install 'modeling-rabtriever[{extra(package)}]'"
        )
        return BAD_INPUT
    except (ValueError, OSError) as error:
        say(str(error))
        return BAD_INPUT
    return 0


def _stage_main(module: str) -> Callable[[Sequence[str]], Any]:
    stage: Callable[[Sequence[str]], Any] = import_module(f"modeling_rabtriever.stages.{module}").main
    return stage


def _extra(arguments: argparse.Namespace, package: str) -> str:
    """The extra that installs everything a command needs."""
    if package == "datasets":  # for corpora on the Hub
        return "train"
    command = arguments.run.__name__
    if command == "export" and package in ("lancedb", "pyarrow"):  # for --dim
        return "retrieval"
    if command == "export":
        return "onnx" if arguments.format == "onnx" else "export"
    if command == "encode":
        return "ray" if arguments.engine == "ray" else "retrieval"
    if package in ("httpx2", "tenacity"):  # for a teacher behind a server
        return "evaluation"
    return "demo" if command == "demo" else "retrieval"
