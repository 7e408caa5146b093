"""Many sets side by side: teacher, Rabtriever (our recipe, the paper's), a bi-encoder on its backbone, baselines.

Usage:
    python -m benchmarks.evaluation_sets --data path/to/sets                      # every set found there, seed 0
    python -m benchmarks.evaluation_sets --data path/to/sets --sets arc_challenge cose --seeds 0 1 2

A folder per set in BEIR layout; none of their data is part of this project. ESConv and SayCan have recipes of their
own, the others share `from-scratch.yaml`; sets without a training split are ranked with the models of another one.
Where the corpus is large every system ranks BM25's first documents alone, and a second report has those that can search
it all. Finished runs under --runs and rows in the result file are kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import bi_encoders
from benchmarks.results import bar, grouped, mean_over_seeds, with_earlier, write_result
from benchmarks.students import TeacherBench, recipe_flags
from benchmarks.tasks import FROM_SCRATCH, RECIPES, RETENTION, TaskRun, evaluation_dtype
from modeling_rabtriever import RabtrieverConfig
from modeling_rabtriever.evaluation.labels import STUDENT, TEACHER
from modeling_rabtriever.files import write_folder
from modeling_rabtriever.stages import distill, pipeline
from modeling_rabtriever.stages import evaluate as evaluate_stage
from modeling_rabtriever.tasks.beir import load_beir

MODELS_OF = {"clinical_trial": "scifact", "limit_small": "scifact"}  # sets without a training split: whose models
SEARCHED_WHOLE = 1000  # documents up to which the teacher judges every pair
PAPER, BI_ENCODER = "paper's recipe", "InfoNCE bi-encoder"


def recipe_of(name: str) -> str:
    """The recipe of a set's models here: small sets of texts from scratch, whatever other recipe they have by now."""
    return FROM_SCRATCH[name] if name in FROM_SCRATCH else RECIPES[name]


def trained(name: str, data: str, seed: int, runs: Path, flags: list[str], bf16: bool) -> dict[str, Path]:
    """The models of one set and seed by the names tables give them; finished ones are read."""
    shared = ["--config", recipe_of(name), "--data", data, "--seed", str(seed)]
    folder = runs / f"{name}-seed{seed}"
    pipeline.main([*shared, "--output_dir", str(folder), *flags], last="distill")
    teacher = folder / "teacher" / "model"
    bench = TeacherBench(TaskRun(name, seed, data, shared, [], None), teacher, runs, splits=())
    if not (folder / "bi-encoder").exists():
        encoder = bi_encoders.train(bench, "InfoNCE", bf16)
        write_folder(folder / "bi-encoder", lambda new: encoder.save_pretrained(str(new)))
    own = ["--states", str(folder / "states"), *pipeline.by_stage(flags)["distill"]]
    return {
        TEACHER: teacher,
        STUDENT: folder / "student" / "model",
        PAPER: distill.main(bench.flags("paper", *recipe_flags(name, "paper"), *own)),
        BI_ENCODER: folder / "bi-encoder",
    }


def measure(name: str, data: str, models: dict[str, Path], seed: int, runs: Path, encoder: str) -> dict[str, Any]:
    """One row: `test` with the teacher, and `whole` without it where that was of candidates alone."""
    source = MODELS_OF.get(name, name)
    dtype = evaluation_dtype(["--config", recipe_of(source), "--data", data])
    common = ["--data", data, "--seed", str(seed), "--sentence_encoder", encoder, "--dtype", dtype]
    large = len(load_beir(data).corpus) > SEARCHED_WHOLE
    chosen = {"test": models} | ({"whole": {k: v for k, v in models.items() if k != TEACHER}} if large else {})
    student = RabtrieverConfig.from_pretrained(models[STUDENT])
    numbers = {"embedding_dim": student.embedding_dim, "shared_dim": student.shared_dim}
    numbers["passes"] = max(len(student.query_anchors), 1)
    row: dict[str, Any] = {"set": name, "seed": seed, "models_of": source, "student": numbers}
    for key, systems in chosen.items():
        output = runs / f"{name}-seed{seed}" / f"all-{key}"
        flags = [f"{who}={path}" for who, path in systems.items()]
        candidates = ["--candidates", "100"] if large and key == "test" else []
        folder = evaluate_stage.main([*common, "--output_dir", str(output), "--model", *flags, *candidates])
        row[key] = json.loads((folder / "test.json").read_text())
    return row


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the student keeps of its teacher on the sets that have a goal, as a mean over seeds."""
    bars = []
    for (name,), seeds in grouped(rows, "set"):
        if name in RETENTION:
            kept = mean_over_seeds([row["test"]["retention"]["success@1"] for row in seeds])
            label = f"student R@1 / teacher R@1, {name} test, mean of {len(seeds)} seeds"
            bars.append(bar(label, kept.mean, ">=", RETENTION[name], seeds[0]["test"]["n"], (kept.low, kept.high)))
    return bars


def main() -> None:
    """Measures all sets and seeds, and puts them into the result file, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder per set")
    known = (*bi_encoders.SETTINGS, *MODELS_OF)  # models before the sets that need them
    parser.add_argument("--sets", nargs="+", choices=known, help="which; default: all that are there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="finished runs there are read")
    parser.add_argument("--flags", default="", help="further flags of training.pipeline, for all sets")
    parser.add_argument("--bf16", action="store_true", help="train the bi-encoder in mixed precision")
    parser.add_argument("--sentence_encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a baseline")
    arguments = parser.parse_args()
    there = [name for name in known if (arguments.data / name).is_dir()]
    for seed in arguments.seeds:
        for name in arguments.sets or there:
            source = MODELS_OF.get(name, name)
            source_data, flags = str(arguments.data / source), arguments.flags.split()
            models = trained(source, source_data, seed, arguments.runs, flags, arguments.bf16)
            data = str(arguments.data / name)
            row = measure(name, data, models, seed, arguments.runs, arguments.sentence_encoder)
            recipe = {"recipe": recipe_of(source), "flags": arguments.flags, "bi_encoder_bf16": arguments.bf16}
            rows = with_earlier("benchmarks.evaluation_sets", [{**row, **recipe}], ("set", "seed"))
            print(write_result("benchmarks.evaluation_sets", {}, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
