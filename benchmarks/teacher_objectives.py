"""What the teacher's objectives are worth: SFT, DPO after SFT, listwise; same backbone, data, steps, batch; over seeds.

Usage:
    python -m benchmarks.teacher_objectives runs/benchmark/household-seed0/data/household    # half an hour on two cores

DPO starts from the SFT teacher of its seed and trains for half as many steps more. Household recipe but for what a row
changes. Dev decides which objective a recipe uses; test is reported.
"""

import argparse
from pathlib import Path
from typing import Any

from transformers import AutoModel

from benchmarks.results import bar, write_result
from evaluation.calibration import expected_calibration_error, reliability
from evaluation.metrics import bootstrap_interval, query_metrics, rank_documents
from evaluation.systems import reranker_system
from training import train_reranker, train_reranker_dpo
from training.evaluate import fixed_sample
from training.tasks.beir import RetrievalTask, load_beir

RECIPE = "training/recipes/household.yaml"
DPO = {"learning_rate": "2e-4", "beta": "0.1", "per_device_train_batch_size": "64", "per_device_eval_batch_size": "64"}
DPO |= {"max_steps": "300", "negatives_per_positive": "3", "activation_checkpointing": "false", "adam_beta2": "0.98"}
DPO |= {"warmup_steps": "30", "lr_scheduler_type": "cosine", "save_steps": "300", "disable_dropout": "true"}
SPLITS = ("dev", "test")
QUERIES = 300  # of each split, drawn with a fixed seed


def measure(data: str, seed: int, runs: Path, task: RetrievalTask) -> list[dict[str, Any]]:
    """Trains and evaluates the three teachers of one seed."""
    shared = ["--config", RECIPE, "--data", data, "--seed", str(seed)]
    folders = {}
    for objective in ("sft", "listwise"):
        output = str(runs / f"{objective}-seed{seed}")
        folders[objective] = train_reranker.main([*shared, "--output_dir", output, "--objective", objective])
    flags = [item for name, value in DPO.items() for item in (f"--{name}", value)]
    folders["sft, then DPO"] = train_reranker_dpo.main([*shared, "--output_dir", str(runs / f"sft-seed{seed}"), *flags])
    return [{"seed": seed, "objective": name, **evaluate(folder, task)} for name, folder in folders.items()]


def evaluate(folder: Path, task: RetrievalTask) -> dict[str, Any]:
    """R@1 and MRR@10 with intervals, and calibration, on dev and test."""
    score = reranker_system(AutoModel.from_pretrained(folder).eval(), task.corpus).score
    found = {}
    for name in SPLITS:
        split = fixed_sample(task.split(name), QUERIES)
        scores = score(split.queries)
        values = query_metrics(rank_documents(scores, 10), split.relevant)
        low, high = bootstrap_interval(values["success@1"])
        found[name] = {
            "n": len(split),
            "success@1": float(values["success@1"].mean()),
            "low": low,
            "high": high,
            "mrr@10": float(values["mrr@10"].mean()),
            "ece": expected_calibration_error(reliability(scores, split.relevant)),
        }
    return found


def main() -> None:
    """Measures all seeds and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the household task, as training.tasks.household writes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/objectives"), help="where the runs go")
    arguments = parser.parse_args()
    task = load_beir(arguments.data)
    rows = [row for seed in arguments.seeds for row in measure(arguments.data, seed, arguments.runs, task)]
    bars = []
    for objective in dict.fromkeys(row["objective"] for row in rows):
        found = [row["test"]["success@1"] for row in rows if row["objective"] == objective]
        name = f"teacher R@1, household test, {objective}, mean of {len(found)} seeds"
        bars.append(bar(name, sum(found) / len(found), ">=", 0.95, QUERIES))
    settings = {"recipe": RECIPE, "seeds": arguments.seeds, "dpo": DPO, "queries": QUERIES}
    print(write_result("benchmarks.teacher_objectives", settings, rows, bars))


if __name__ == "__main__":
    main()
