"""Writes queries without labels: `python -m training.generate_queries --config household`; see `--help`."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.generate_queries import main

if __name__ == "__main__":
    run_command(main)
