"""Runs the whole path on the embedded task: `python -m training.quickstart`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.quickstart import main

if __name__ == "__main__":
    run_command(main)
