"""Runs all stages in order: `python -m training.pipeline --config household`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.pipeline import main

if __name__ == "__main__":
    run_command(main)
