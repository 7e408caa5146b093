"""Puts the household models of a finished quickstart into the package, for `modeling_rabtriever.example`.

Usage:
    make quickstart
    python -m training.example_models runs/household

The folders hold weights, configuration, tokenizer and prompt; the code is the package's own. The corpus goes with them:
the demo page starts with it.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import modeling_rabtriever
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.stages.command import run_command

FOLDER = Path(modeling_rabtriever.__file__).parent / "example_models" / "household"
KINDS = ("student", "teacher")


def main(argv: Sequence[str] | None = None, folder: Path = FOLDER) -> None:
    """Replaces the models and the corpus in `folder` by those of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a quickstart's run")
    run = parser.parse_args(argv).run
    models = {kind: load_model(run / kind / "model") for kind in KINDS}
    for kind, model in models.items():
        shutil.rmtree(folder / kind, ignore_errors=True)
        model.save_pretrained(folder / kind)
        for path in (folder / kind).iterdir():
            if path.suffix not in (".json", ".safetensors"):
                path.unlink()
    shutil.copyfile(run / "data" / "household" / "corpus.jsonl", folder / "corpus.jsonl")


if __name__ == "__main__":
    run_command(main)
