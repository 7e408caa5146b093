"""The stages of a run, as programs: they read options and recipes and write the folder of the run.

The command `rabtriever` and the scripts in `training/` of a clone call them. Importing this package imports no stage.
"""

import sys
from pathlib import Path


def program(stage: str) -> str:
    """The command line of a stage: of the command `rabtriever`, or of a script in a clone."""
    called = Path(sys.argv[0])
    if called.stem == "rabtriever" or called.parent.name == "rabtriever_cli":
        return f"rabtriever {'train' if stage == 'train_reranker' else stage}"
    return f"python -m training.{stage}"
