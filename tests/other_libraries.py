"""The left-hand sides of `docs/from-other-libraries.md`, held against the releases that the page names.

Usage:
    python -m tests.other_libraries     # make others

Each library is installed beside the environment, in `.others/`, without what it depends on: ours has what it imports.
Every name, attribute and argument of the code on the left has to be there. rerankers and FlagEmbedding also read the
cross-encoder that a teacher is exported to, and have to give its scores.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/from-other-libraries.md"
FOLDER = ROOT / ".others"
# What the page's code calls things: an object of the library, or for a bare argument the function that takes it.
ST, PYLATE, FLAG = "sentence_transformers", "pylate", "FlagEmbedding"
NAMES = {
    "sentence-transformers": {
        "SentenceTransformer": f"{ST}:SentenceTransformer",
        "model": f"{ST}:SentenceTransformer",
        "util": f"{ST}.util",
        "CrossEncoder": f"{ST}:CrossEncoder",
        "CrossEncoderTrainer": f"{ST}:CrossEncoderTrainer",
        "SentenceTransformerTrainer": f"{ST}:SentenceTransformerTrainer",
        "MarginMSELoss": f"{ST}.sentence_transformer.losses:MarginMSELoss",
        "DistillKLDivLoss": f"{ST}.sentence_transformer.losses:DistillKLDivLoss",
        "MultipleNegativesRankingLoss": f"{ST}.sentence_transformer.losses:MultipleNegativesRankingLoss",
        "InformationRetrievalEvaluator": f"{ST}.sentence_transformer.evaluation:InformationRetrievalEvaluator",
        "mine_hard_negatives": f"{ST}.util:mine_hard_negatives",
        "prompt_name": f"{ST}:SentenceTransformer.encode",
    },
    "FlagEmbedding": {
        "FlagAutoModel": f"{FLAG}:FlagAutoModel",
        "model": f"{FLAG}:FlagModel",
        "FlagReranker": f"{FLAG}:FlagReranker",
        "FlagLLMReranker": f"{FLAG}:FlagLLMReranker",
        "query_instruction_for_retrieval": f"{FLAG}:FlagAutoModel.from_finetuned",
    },
    "rerankers": {
        "Reranker": "rerankers:Reranker",
        "ranker": "rerankers.models.ranker:BaseRanker",
        "results": "rerankers.results:RankedResults",
        "result": "rerankers.results:Result",
    },
    "PyLate": {
        "models": f"{PYLATE}.models",
        "model": f"{PYLATE}.models:ColBERT",
        "indexes": f"{PYLATE}.indexes",
        "index": f"{PYLATE}.indexes:PLAID",
        "retrieve": f"{PYLATE}.retrieve",
        "rank": f"{PYLATE}.rank",
        "losses": f"{PYLATE}.losses",
    },
}
# What a reader has: never looked up, whatever is called on it.
VARIABLES = {"texts", "q", "d", "query", "documents", "docs", "pairs", "ids", "embeddings", "folder"}
TOLERANCE = 1e-4  # of the largest score


def main() -> int:
    """Installs the releases that the page names, and returns 0 if all of its left-hand sides hold."""
    for library, version in versions().items():
        if not (FOLDER / f"{library}-{version}").exists():
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--no-warn-conflicts",
                "--upgrade",
            ]
            subprocess.run([*command, "--target", str(FOLDER), f"{library}=={version}"], check=True)
            (FOLDER / f"{library}-{version}").touch()
    environment = {**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "tests.other_libraries", "--installed"], env=environment).returncode


def versions() -> dict[str, str]:
    """Library -> the release that the page names."""
    return dict(re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", PAGE.read_text().partition("\n## ")[0]))


def left_hand_sides() -> Iterator[tuple[str, str]]:
    """The section and each piece of code on the left of its table."""
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        for row in re.findall(r"^\| (.+?) \| .+ \|$", text, flags=re.MULTILINE):
            for code in re.findall(r"`([^`]+)`", row):
                yield title, code


def check(section: str, code: str) -> None:
    """Fails if the code names something that its library does not have, or passes arguments that it does not take."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            _check_call(section, node)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            _found(section, node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):  # an argument by itself
            (argument,) = node.targets
            assert isinstance(argument, ast.Name), code
            assert argument.id in inspect.signature(_object(NAMES[section][argument.id])).parameters, code


def _check_call(section: str, call: ast.Call) -> None:
    function = _found(section, call.func)
    if function is None or any(isinstance(given, ast.Constant) and given.value is ... for given in call.args):
        return
    method = isinstance(call.func, ast.Attribute) and inspect.isclass(_found(section, call.func.value))
    bound_to_class = inspect.ismethod(function)
    given = [None] * (len(call.args) + (method and not bound_to_class))
    inspect.signature(function).bind(*given, **dict.fromkeys([keyword.arg or "" for keyword in call.keywords]))


def _found(section: str, node: ast.expr) -> Any:
    """The object that an expression names: a module, class or function; `None` for a reader's variable."""
    if isinstance(node, ast.Name):
        return None if node.id in VARIABLES else _object(NAMES[section][node.id])
    if isinstance(node, ast.Attribute):
        owner = _found(section, node.value)
        if owner is None or (section == "rerankers" and node.attr in _handed_on(owner)):
            return None
        return getattr(owner, node.attr)
    if isinstance(node, ast.Call):
        made = _found(section, node.func)
        return made if inspect.isclass(made) else None
    return None


def _handed_on(owner: Any) -> list[str]:
    """What a result of rerankers has beside its class's own names: its score and what its document holds."""
    if owner is not _object("rerankers.results:Result"):
        return []
    return ["score", *_object("rerankers.documents:Document")(text="a").attributes]


def _object(path: str) -> Any:
    module, _, names = path.partition(":")
    found: Any = import_module(module)
    for name in names.split(".") if names else []:
        found = getattr(found, name)
    return found


def check_scores() -> None:
    """Fails if rerankers or FlagEmbedding score the exported teacher otherwise than the teacher does."""
    from FlagEmbedding import FlagReranker
    from rerankers import Reranker

    from modeling_rabtriever import GenerativeRerankerModel, example
    from modeling_rabtriever.export import export_cross_encoder

    teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
    query, documents = "In the kitchen: I spilled my drink.", ["bring the sponge to the kitchen", "bring the lamp"]
    expected = teacher.predict([(query, document) for document in documents]).tolist()
    with tempfile.TemporaryDirectory() as place:
        folder = f"{place}/teacher"
        export_cross_encoder(teacher, folder)
        hits = Reranker(folder, model_type="cross-encoder", verbose=0, device="cpu").rank(query=query, docs=documents)
        flag = FlagReranker(folder, devices="cpu").compute_score([(query, document) for document in documents])
    ranked = [score for _, score in sorted((hit.doc_id, hit.score) for hit in hits)]
    largest = max(map(abs, expected))
    for library, scores in (("rerankers", ranked), ("FlagEmbedding", flag)):
        difference = max(abs(ours - theirs) for ours, theirs in zip(expected, scores, strict=True))
        print(f"{library} scores the exported teacher: off by {difference:.1e} at most, the largest is {largest:.1f}")
        assert difference <= TOLERANCE * largest, (library, scores, expected)


def check_all() -> int:
    """Checks every piece of code and the scores; returns 1 if something does not hold."""
    pieces = list(left_hand_sides())
    failed = [f"{section}: {code}: {fault}" for section, code in pieces if (fault := _fault(section, code))]
    print(*failed, f"{len(pieces) - len(failed)} pieces of code hold, {len(failed)} do not; {versions()}", sep="\n")
    check_scores()
    return min(len(failed), 1)


def _fault(section: str, code: str) -> str | None:
    try:
        check(section, code)
    except (AssertionError, AttributeError, KeyError, SyntaxError, TypeError) as error:
        return f"{type(error).__name__} {error}"
    return None


if __name__ == "__main__":
    sys.exit(check_all() if "--installed" in sys.argv else main())
