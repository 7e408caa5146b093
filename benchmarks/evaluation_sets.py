"""Compares models on many sets: teacher, Rabtriever (our recipe, the paper's), a bi-encoder on its backbone, baselines.

Usage:
    python -m benchmarks.evaluation_sets --data path/to/sets                      # every set found there, seed 0
    python -m benchmarks.evaluation_sets --data path/to/sets --sets arc_challenge cose --seeds 0 1 2

Needs one folder per set in BEIR layout; the data are not part of this project. ESConv and SayCan have their own
recipes, the others share `from-scratch.yaml`; sets without a training split use the models of another set. If the
corpus is large, every system ranks only the first documents of BM25, and a second report has the systems that can
search all of it. Finished runs under --runs and rows in the result file are kept.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.bills import Bill, Setting
from benchmarks.opponents import Opponent, untrained
from benchmarks.results import bar, grouped, mean_over_seeds, with_earlier, write_result
from benchmarks.students import TeacherBench
from benchmarks.tasks import FROM_SCRATCH, RECIPES, RETENTION, TaskRun, add_settings, settings_of
from modeling_rabtriever import RabtrieverConfig
from modeling_rabtriever.evaluation import evaluate, load_system
from modeling_rabtriever.evaluation.labels import STUDENT, TEACHER
from modeling_rabtriever.evaluation.systems import public_encoder
from modeling_rabtriever.files import write_folder
from modeling_rabtriever.stages import pipeline
from modeling_rabtriever.tasks.beir import load_beir

MODELS_OF = {
    "clinical_trial": "scifact",
    "limit_small": "scifact",
}  # sets without a training split -> the set whose models they use
SEARCHED_WHOLE = 1000  # in a corpus of at most this many documents, the teacher scores every pair
PAPER, BI_ENCODER = "paper's recipe", "InfoNCE bi-encoder"


# Steps, batch and learning rate of the bi-encoder; not tuned.
BI_ENCODERS: dict[str, tuple[int, int, float]] = dict.fromkeys(FROM_SCRATCH, (200, 32, 5e-4))
BI_ENCODERS |= {"esconv": (192, 64, 5e-4), "saycan": (42, 16, 5e-5)}


def run_of(name: str, data: Path, seed: int) -> TaskRun:
    """A set to train models on; small sets of texts start from scratch, even if they have another recipe by now."""
    return TaskRun(name, seed, str(data / name), config=FROM_SCRATCH.get(name, RECIPES[name]))


def trained(run: TaskRun, runs: Path, settings: dict[str, Any], bf16: bool) -> dict[str, Path]:
    """The models of one set and seed by their names in tables; reuses finished ones."""
    folder = runs / f"{run.task}-seed{run.seed}"
    flags = {"data": run.data, "seed": run.seed, "output_dir": folder} | settings
    command = [item for name, value in flags.items() for item in (f"--{name}", str(value))]
    pipeline.main(["--config", str(run.config), *command], last="distill")
    teacher = folder / "teacher" / "model"
    bench = TeacherBench(run, teacher, runs, splits=())
    if not (folder / "bi-encoder").exists():
        bi_encoder(bench, folder / "bi-encoder", bf16)
    own = {name.removeprefix("distill."): value for name, value in settings.items() if name.startswith("distill.")}
    bench.distil("paper", "paper", **own)
    return {
        TEACHER: teacher,
        STUDENT: folder / "student" / "model",
        PAPER: bench.folder("paper") / "model",
        BI_ENCODER: folder / "bi-encoder",
    }


def bi_encoder(bench: TeacherBench, folder: Path, bf16: bool) -> None:
    """Trains the teacher's backbone on the labels as a bi-encoder: last token, cosine, no prompt."""
    (steps, batch, rate), train = BI_ENCODERS[bench.run.task], bench.task.split("train")
    setting = Setting(steps, batch, batch, (rate,), candidates=0, bf16=bf16)
    no_pairs = torch.empty(len(train), 0)
    bill = Bill(train.queries, [list(own) for own in train.relevant], no_pairs, no_pairs)
    with TemporaryDirectory() as backbone, TemporaryDirectory() as start:
        untrained(bench.reranker, "InfoNCE", Path(backbone)).save_pretrained(start)
        model, _ = Opponent(bench.reranker, bench.task.corpus, bill, setting, start, bench.run.seed).train(
            "InfoNCE", rate
        )
    write_folder(folder, lambda new: model.save_pretrained(str(new)))


def measure(
    name: str, data: Path, source: TaskRun, models: dict[str, Path], runs: Path, encoder: str
) -> dict[str, Any]:
    """One row: `test` with the teacher, and `whole` without it if `test` ranked only candidates."""
    task, dtype = load_beir(data / name), source.recipe("evaluate").get("dtype", "auto")
    large = len(task.corpus) > SEARCHED_WHOLE
    chosen = {"test": models} | ({"whole": {k: v for k, v in models.items() if k != TEACHER}} if large else {})
    student = RabtrieverConfig.from_pretrained(models[STUDENT])
    row: dict[str, Any] = {"set": name, "seed": source.seed, "models_of": source.task}
    row["student"] = {"embedding_dim": student.embedding_dim}
    for key, paths in chosen.items():
        folder = runs / f"{name}-seed{source.seed}" / f"all-{key}"
        if not (folder / "test.json").exists():
            public = public_encoder(encoder, task.corpus)
            systems = [load_system(f"{who}={path}", task.corpus, dtype) for who, path in paths.items()]
            candidates = 100 if large and key == "test" else None
            evaluate(
                [*([] if public is None else [public]), *systems], task, folder=folder, candidates=candidates,
                seed=source.seed,
            )  # fmt: skip
        row[key] = json.loads((folder / "test.json").read_text())
    return row


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The share of the teacher's R@1 that the student keeps, mean over seeds, on the sets that have a goal."""
    bars = []
    for (name,), seeds in grouped(rows, "set"):
        if name in RETENTION:
            kept = mean_over_seeds([row["test"]["retention"]["success@1"] for row in seeds])
            label = f"student R@1 / teacher R@1, {name} test, mean of {len(seeds)} seeds"
            bars.append(bar(label, kept.mean, ">=", RETENTION[name], seeds[0]["test"]["n"], (kept.low, kept.high)))
    return bars


def main() -> None:
    """Measures all sets and seeds, and adds them to the result file, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per set")
    known = (*BI_ENCODERS, *MODELS_OF)  # sets with models come before sets that use them
    parser.add_argument("--sets", nargs="+", choices=known, help="sets to measure; default: all in the folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/benchmark"), help="folder of the runs; finished ones are reused"
    )
    add_settings(parser, "further options of the pipeline, such as distill.max_steps=500")
    parser.add_argument("--bf16", action="store_true", help="train the bi-encoder in mixed precision")
    parser.add_argument("--sentence_encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a baseline")
    arguments = parser.parse_args()
    there = [name for name in known if (arguments.data / name).is_dir()]
    for seed in arguments.seeds:
        for name in arguments.sets or there:
            source = run_of(MODELS_OF.get(name, name), arguments.data, seed)
            models = trained(source, arguments.runs, settings_of(arguments), arguments.bf16)
            row = measure(name, arguments.data, source, models, arguments.runs, arguments.sentence_encoder)
            recipe = {"recipe": source.config, "settings": arguments.settings, "bi_encoder_bf16": arguments.bf16}
            rows = with_earlier("benchmarks.evaluation_sets", [{**row, **recipe}], ("set", "seed"))
            print(write_result("benchmarks.evaluation_sets", {}, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
