"""Publishes a model on the Hub: `python -m training.release`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.release import main

if __name__ == "__main__":
    run_command(main)
