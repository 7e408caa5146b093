"""The package as a wheel alone: it trains, distils, evaluates, exports and searches from a folder without the clone.

Usage:
    python -m tests.wheel     # make wheel

The wheel is built from the tree and installed into a temporary folder, in front of the environment's packages.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
# What a clone has beside the package cannot be imported.
COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules.update(dict.fromkeys(("training", "model_cards", "benchmarks", "tests")))
import modeling_rabtriever
from rabtriever_cli import main
assert modeling_rabtriever.__file__.startswith(sys.argv[1]), modeling_rabtriever.__file__
sys.argv[0] = "rabtriever"
sys.exit(main(sys.argv[2:]))
"""
FEW = "--max_steps 8 --warmup_steps 2"
RUN = "--config household --data run/data/household --output_dir mine"
COMMANDS = (
    "quickstart --output_dir run --train_reranker.max_steps 8 --train_reranker.warmup_steps 2 "
    "--train_reranker.dev_groups 32 --distill.max_steps 12 --distill.warmup_steps 2 --distill.candidates 12 "
    "--evaluate.max_queries 12",
    f"train {RUN} {FEW} --dev_groups 8",
    f"distill {RUN} --config students/paper {FEW} --candidates 4",
    f"evaluate {RUN} --splits test --max_queries 8",
    "card mine --license apache-2.0 data=apache-2.0",
    "encode --model mine/student/model --corpus run/data/household/corpus.jsonl --output vectors --quiet",
    "index --vectors vectors --store store --quiet",
    "search --model mine/student/model --store store --query thirsty --top-k 2 --quiet",
    "export --model mine/student/model --format sentence-transformers --output towers",
    "info store",
)


def main() -> int:
    """Returns how many commands failed: one, with which it ends, or none."""
    with TemporaryDirectory() as name:
        folder, installed = Path(name), Path(name).resolve() / "installed"
        pip = [sys.executable, "-m", "pip", "--quiet"]
        subprocess.run(
            [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "built"), str(ROOT)],
            check=True,
        )
        wheel = next((folder / "built").glob("*.whl"))
        subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(installed), str(wheel)], check=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        for command in COMMANDS:
            print(f"== rabtriever {command}", flush=True)
            call = [sys.executable, "-c", COMMAND, str(installed), *command.split()]
            if subprocess.run(call, cwd=folder, env=environment, check=False).returncode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
