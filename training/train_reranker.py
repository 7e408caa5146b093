"""Trains the teacher: `python -m training.train_reranker --config household`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.train_reranker import main

if __name__ == "__main__":
    run_command(main)
