"""The code blocks of the pages: read with Sybil, run as they stand, or only checked where they say so themselves."""

import ast
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

import rabtriever_cli as cli
from modeling_rabtriever.stages import pipeline
from modeling_rabtriever.stages.recipe import parse_stage, split_config
from rabtriever_cli.stages import STAGES

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("model_cards/*.md")]
)
NOT_RUN = "# not run in the tests: "  # the first line of a block that the tests only check
MAKEFILE = (ROOT / "Makefile").read_text()

# What takes hours, or reads the Hub, in its small form.
REPLACED = {
    "Qwen/Qwen3-0.6B": "backbone.json",
    'objective="listwise", max_steps=600': 'objective="listwise", max_steps=2, use_cpu=True',
    '"runs/student", max_steps=600': '"runs/student", max_steps=2, candidates=6, use_cpu=True',
    "--config qwen3-0.6b": "--config from-scratch",
}
FEW_STEPS = [f"--{stage}.max_steps=2" for stage in ("pretrain", "train_reranker", "distill")]
FEW_STEPS += [f"--{stage}.warmup_steps=1" for stage in ("pretrain", "train_reranker", "distill")]
FEW_STEPS += ["--train_reranker.dev_groups=4", "--distill.candidates=6", "--evaluate.max_queries=4"]
# Programs of others, whose arguments nothing here can check.
OTHERS = {
    "accelerate",
    "git",
    "infinity_emb",
    "llama-server",
    "pip",
    "pip-audit",
    "ray",
    "sed",
    "source",
    "text-embeddings-router",
    "trackio",
    "uv",
    "vllm",
}


def small(code: str) -> str:
    """The code with few steps and a tiny backbone."""
    for printed, instead in REPLACED.items():
        code = code.replace(printed, instead)
    return code


def read(page: Path) -> Document:
    """The page's blocks, in their order; evaluating one runs it, or checks it if it says so.

    A YAML block whose first line is a comment with a file's name becomes that file.
    """
    parsers = [CodeBlockParser("python", _python), CodeBlockParser("bash", _shell), CodeBlockParser("yaml", _file)]
    return Document.parse(str(page), *parsers)


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, without comments and assignments of variables."""
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    parts = []
    for line in lines:
        for command in _split(line, {"&&", "|"}):
            while command and re.match(r"[A-Z_]+=", command[0]):
                del command[0]
            if command:
                parts.append([Path(command[0]).name, *command[1:]])
    return parts


def check(program: str, *words: str) -> None:
    """Fails if a command names a program, a target, a module, a file or an option that is not there."""
    if program == "rabtriever":
        _check_rabtriever(*words)
    elif program == "make":
        targets = [word for word in words if "=" not in word]
        assert targets
        assert all(f"\n{target}:" in MAKEFILE for target in targets), targets
    elif program in ("python", "torchrun"):
        module, *rest = words[words.index("-m") + 1 :]
        if module.startswith("training."):
            stage = module.removeprefix("training.")
            name = next((command for command, found in STAGES.items() if found.module == stage), None)
            _check_rabtriever(name or stage, *rest)
        else:
            assert find_spec(module), module
            assert [word for word in rest if word.endswith(".py") and not (ROOT / word).exists()] == []
    else:
        assert program in OTHERS, program


def _check_rabtriever(name: str, *words: str) -> None:
    if name not in STAGES:
        cli.parser(cli.COMMANDS, STAGES).parse_args([name, *words])
    elif name in ("release", "card"):
        function = f"modeling_rabtriever.stages.{name}.{'release' if name == 'release' else 'write_cards'}"
        with mock.patch(function) as called:
            assert cli.main([name, *words]) == 0
        called.assert_called_once()
    elif name in ("pipeline", "quickstart"):
        configs, flags = split_config(words)
        chosen = [part for config in configs for part in ("--config", config)]
        for stage, own in pipeline.by_stage(flags).items():
            parse_stage(stage, pipeline._STAGES[stage].ARGUMENTS, [*chosen, *own])
    else:
        stage = STAGES[name].module
        parse_stage(stage, pipeline._STAGES[stage].ARGUMENTS, words)


def _python(example: Example) -> None:
    code = str(example.parsed)
    if code.startswith(NOT_RUN):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modeling_rabtriever"):
                exec(compile(ast.unparse(node), example.path, "exec"), {})
        return
    padding = "\n" * (example.line + example.parsed.line_offset)
    exec(compile(padding + small(code), example.path, "exec"), example.namespace)


def _shell(example: Example) -> None:
    block = str(example.parsed)
    for program, *words in commands(block):
        check(program, *words)
    if block.startswith(NOT_RUN):
        return
    for program, *words in commands(small(block)):
        if program == "rabtriever":
            more = FEW_STEPS if words[0] == "pipeline" else []
            assert cli.main([*words, *more]) == 0, words


def _file(example: Example) -> None:
    name = str(example.parsed).partition("\n")[0].removeprefix("# ")
    Path(name).write_text(str(example.parsed))


def _split(words: list[str], separators: set[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in separators:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def blocks(page: Path) -> list[Any]:
    """The examples of a page."""
    return list(read(page).examples())
