"""Evaluates models beside trivial baselines: `python -m training.evaluate --config household`; see `--help`."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.evaluate import main

if __name__ == "__main__":
    run_command(main)
