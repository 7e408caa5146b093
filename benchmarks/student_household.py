"""What the student's parts are worth: one teacher, one part changed at a time, over seeds.

Usage:
    python -m benchmarks.student_household runs/benchmark/household-seed0     # about 20 minutes on two cores

The folder is a finished quickstart run. Every row distils its teacher with the household recipe and the row's changes;
steps, learning rate and teacher bill (40 candidates per query) are the same. Dev is what settings were chosen on.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModel

from benchmarks.results import bar, write_result
from benchmarks.tasks import as_flags
from evaluation.metrics import bootstrap_interval, query_metrics, rank_documents
from evaluation.systems import System, rabtriever_system, reranker_system
from training import distill
from training.tasks.beir import RetrievalTask, load_beir

RECIPE = "training/recipes/household.yaml"
PAPER_PREDICTOR = {"predictor_type": "paper", "feature_poolings": "last", "num_heads": "1", "whitening_damping": "null"}
PAPER_LOSSES = {"listwise_weight": "0", "mse_weight": "1", "kl_weight": "0.25"}
UNIFORM = {"on_policy_fraction": "0"}
ROWS: dict[str, dict[str, str]] = {
    "ours": {},
    "without whitening": {"whitening_damping": "null"},
    "without on-policy candidates (uniform ones)": UNIFORM,
    "without the listwise term (MSE + KL)": PAPER_LOSSES,
    "without MSE + KL (listwise alone)": {"mse_weight": "0", "kl_weight": "0"},
    "without the mean feature (last token alone)": {"feature_poolings": "last"},
    "one head": {"num_heads": "1"},
    "k = 128": {"embedding_dim": "128"},
    "all layers": {"feature_layers": "0 1 2 -1"},
    "paper's predictor, our losses and candidates": PAPER_PREDICTOR,
    "paper's predictor, losses and uniform candidates": {**PAPER_PREDICTOR, **PAPER_LOSSES, **UNIFORM},
}
SPLITS = ("dev", "test")


def measure(name: str, changes: dict[str, str], seed: int, run: Path, task: RetrievalTask) -> dict[str, Any]:
    """Distils one row and ranks both splits in full: per-query success@1 and MRR@10."""
    settings = {"embedding_dim": "512", **changes}
    if settings.get("predictor_type") == "paper":
        settings["embedding_dim"] = "null"
    flags = as_flags({key: value.split() for key, value in settings.items()})
    folder = run / "ablation" / f"{list(ROWS).index(name):02d}-seed{seed}"
    shared = [
        "--config",
        RECIPE,
        "--data",
        str(run / "data" / "household"),
        "--teacher",
        str(run / "teacher" / "model"),
    ]
    places = ["--output_dir", str(folder), "--states", str(run / "ablation" / "states"), "--seed", str(seed)]
    student = AutoModel.from_pretrained(distill.main([*shared, *places, *flags])).eval()
    return values(rabtriever_system(student, task.corpus), task)


def values(system: System, task: RetrievalTask) -> dict[str, Any]:
    """Split -> metric -> per-query values."""
    found = {}
    for name in SPLITS:
        split = task.split(name)
        found[name] = query_metrics(rank_documents(system.score(split.queries), 10), split.relevant)
    return found


def main() -> None:
    """Runs all rows and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished quickstart run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    task = load_beir(arguments.run / "data" / "household")
    teacher = AutoModel.from_pretrained(arguments.run / "teacher" / "model").eval()
    reference = values(reranker_system(teacher, task.corpus), task)
    rows: list[dict[str, Any]] = [{"row": "teacher", "seeds": 1, **summary([reference], reference)}]
    for name, changes in ROWS.items():
        runs = [measure(name, changes, seed, arguments.run, task) for seed in arguments.seeds]
        rows.append({"row": name, "changes": changes, "seeds": len(runs), **summary(runs, reference)})
    ours = rows[1]["test"]
    bars = [
        bar(
            "student R@1 / teacher R@1, household test in full, mean of seeds",
            ours["retention"],
            ">=",
            0.95,
            len(task.split("test")),
        )
    ]
    print(
        write_result("benchmarks.student_household", {"run": arguments.run.name, "seeds": arguments.seeds}, rows, bars)
    )


def summary(runs: list[dict[str, Any]], reference: dict[str, Any]) -> dict[str, Any]:
    """Means over queries and seeds; the interval is over queries, of their mean over seeds."""
    summarised: dict[str, Any] = {}
    for split in SPLITS:
        by_query = {m: np.mean([run[split][m] for run in runs], axis=0) for m in ("success@1", "mrr@10")}
        low, high = bootstrap_interval(by_query["success@1"])
        summarised[split] = {
            "n": len(by_query["success@1"]),
            "success@1": float(by_query["success@1"].mean()),
            "low": low,
            "high": high,
            "per_seed": [float(run[split]["success@1"].mean()) for run in runs],
            "mrr@10": float(by_query["mrr@10"].mean()),
            "retention": float(by_query["success@1"].mean() / reference[split]["success@1"].mean()),
        }
    return summarised


if __name__ == "__main__":
    main()
