"""Which teachers have document states worth distilling: the same distillation after each way of training the teacher.

Usage:
    python -m benchmarks.document_states household=runs/household/data/household      # an hour on two cores
    python -m benchmarks.document_states household=... esconv=ESCONV --backbone esconv=runs/esconv/backbone/model

Every task is trained with its recipe, at the seeds given; a row changes what its name says. Finished runs under --runs
are
read, so that tasks and seeds can be measured one after another. Dev decides what a recipe uses; test is reported.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import bar, write_result
from training import distill, evaluate, train_reranker

RECIPES = {
    "household": "training/recipes/household.yaml",
    "esconv": "training/recipes/esconv.yaml",
    "saycan": "training/recipes/saycan.yaml",
}
# A token of its own that closes the document; in tokenizers made from scratch it is in the vocabulary anyway.
SUMMARY = {"document_template": "Document: {document}\n<|endoftext|>"}
JOINT = {"joint_weight": "0.3"}
TEACHERS: dict[str, dict[str, str]] = {
    "ordinary": {},
    "document language modelling": {"document_lm_weight": "0.1"},
    "joint student": JOINT,
    "summary token": SUMMARY,
    "joint student and summary token": {**JOINT, **SUMMARY},
}
# The student alone changes: it reads the ordinary teacher's inner layers too.
LAYERS = {"household": "0 1 2 -1", "esconv": "1 2 -1", "saycan": "10 20 -1"}
SPLITS = ("dev", "test")


def measure(task: str, data: str, seed: int, runs: Path, flags: list[str]) -> list[dict[str, Any]]:
    """All rows of one task and seed: R@1 of teacher and student on both splits."""
    shared = ["--config", RECIPES[task], "--data", data, "--seed", str(seed)]
    rows, teachers = [], {}
    for name, changes in TEACHERS.items():
        folder = runs / f"{task}-{name.replace(' ', '-')}-seed{seed}"
        own = [item for key, value in changes.items() for item in (f"--{key}", value)]
        teachers[name] = train_reranker.main([*shared, "--output_dir", str(folder), *own, *flags])
        rows.append({"row": name, **student(shared, folder, teachers[name], [])})
    folder = runs / f"{task}-several-layers-seed{seed}"
    layers = ["--feature_layers", *LAYERS[task].split()]
    rows.append({"row": "several layers", **student(shared, folder, teachers["ordinary"], layers)})
    return [{"task": task, "seed": seed, **row} for row in rows]


def student(shared: list[str], folder: Path, teacher: Path, flags: list[str]) -> dict[str, Any]:
    """Distils one teacher and evaluates both."""
    places = ["--output_dir", str(folder), "--teacher", str(teacher)]
    trained = distill.main([*shared, *places, *flags])
    evaluate.main([*shared, *places, "--student", str(trained), "--splits", *SPLITS])
    found: dict[str, Any] = {}
    for split in SPLITS:
        report = json.loads((folder / "evaluation" / f"{split}.json").read_text())
        found[split] = {"n": report["n"]} | {
            system: report["systems"][system]["success@1"] for system in ("teacher", "Rabtriever")
        }
    return found


def main() -> None:
    """Measures all tasks and seeds, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help=f"name=folder in BEIR layout; names: {', '.join(RECIPES)}")
    parser.add_argument("--backbone", nargs="+", default=[], help="name=folder: what a task starts from")
    parser.add_argument("--steps", nargs="+", default=[], help="name=steps of the teacher, where not the recipe's")
    parser.add_argument("--flags", default="", help="further flags of training.train_reranker, for all tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/document-states"), help="where the runs go")
    arguments = parser.parse_args()
    backbones, steps = (dict(item.split("=", 1) for item in given) for given in (arguments.backbone, arguments.steps))
    rows = []
    for task, data in (item.split("=", 1) for item in arguments.tasks):
        flags = ["--model_name_or_path", backbones[task]] if task in backbones else []
        flags += ["--max_steps", steps[task]] if task in steps else []
        flags += arguments.flags.split()
        rows += [row for seed in arguments.seeds for row in measure(task, data, seed, arguments.runs, flags)]
    bars = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for name in dict.fromkeys(row["row"] for row in rows):
            tests = [row["test"] for row in rows if row["task"] == task and row["row"] == name]
            kept = float(np.mean([test["Rabtriever"]["mean"] / test["teacher"]["mean"] for test in tests]))
            label = f"student R@1 / teacher R@1, {task} test, {name}, mean of {len(tests)} seeds"
            bars.append(bar(label, kept, ">=", 0.95, tests[0]["n"]))
    settings = {"seeds": arguments.seeds, "teachers": TEACHERS, "layers": LAYERS, "steps": steps}
    print(write_result("benchmarks.document_states", settings, rows, bars))


if __name__ == "__main__":
    main()
