"""ESConv, end to end from scratch on a CPU: teacher and student beside the trivial baselines, over seeds.

Usage:
    python -m benchmarks.evaluation_esconv path/to/esconv --seeds 0 1 2     # about half an hour a seed with --bf16

The folder is ESConv in BEIR layout. The data are for non-commercial use and not part of this project.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.results import bar, write_result
from training import pipeline

RECIPE = "training/recipes/esconv.yaml"
# R@1 of TF-IDF + logistic regression on this test split, measured before this project; ours is in the rows.
KNOWN_LOGISTIC_REGRESSION = 0.289


def measure(data: str, seed: int, folder: Path, precision: list[str]) -> dict[str, Any]:
    """One run of the pipeline; a run that is there already is read."""
    run = folder / f"esconv-seed{seed}"
    pipeline.main(["--config", RECIPE, "--data", data, "--output_dir", str(run), "--seed", str(seed), *precision])
    names = ("backbone", "teacher", "student")
    stages = {stage: json.loads((run / stage / "stage.json").read_text()) for stage in names}
    return {
        "seed": seed,
        "pretraining_seconds": stages["backbone"]["seconds"],
        "teacher_seconds": stages["teacher"]["seconds"],
        "teacher_training_pairs": stages["teacher"]["pairs"],
        "teacher_parameters": stages["teacher"]["parameters"],
        "student_seconds": stages["student"]["seconds"],
        "student_teacher_pairs": stages["student"]["teacher_pairs"],
        "embedding_dim": stages["student"]["embedding_dim"],
        "test": json.loads((run / "evaluation" / "test.json").read_text()),
    }


def main() -> None:
    """Measures all seeds and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of ESConv in BEIR layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="where the runs go")
    parser.add_argument("--bf16", action="store_true", help="train in bf16, for CPUs with AVX512-BF16 or AMX")
    arguments = parser.parse_args()
    trained = ("pretrain", "train_reranker")
    flags = [f"--{stage}.{name}" for stage in trained for name in ("bf16", "use_cpu")]
    precision = [item for flag in flags for item in (flag, "true")] if arguments.bf16 else []
    if arguments.bf16:
        precision += ["--train_reranker.attn_implementation", "eager"]  # a sixth faster than sdpa there
    rows = [measure(arguments.data, seed, arguments.runs, precision) for seed in arguments.seeds]
    bars = []
    for row in rows:
        report, seed = row["test"], row["seed"]
        kept = report["retention"]["success@1"]
        bars.append(
            bar(
                f"student R@1 / teacher R@1, seed {seed}",
                kept["mean"],
                ">=",
                0.95,
                report["n"],
                (kept["low"], kept["high"]),
            )
        )
        for system in ("teacher", "Rabtriever"):
            found = report["systems"][system]["success@1"]
            name = f"{system} R@1 against TF-IDF + logistic regression as known before, seed {seed}"
            bars.append(
                bar(name, found["mean"], ">=", KNOWN_LOGISTIC_REGRESSION, report["n"], (found["low"], found["high"]))
            )
    print(
        write_result(
            "benchmarks.evaluation_esconv",
            {"recipe": RECIPE, "seeds": arguments.seeds, "bf16": arguments.bf16},
            rows,
            bars,
        )
    )


if __name__ == "__main__":
    main()
