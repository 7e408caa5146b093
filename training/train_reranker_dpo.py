"""Tunes a trained teacher by DPO: `python -m training.train_reranker_dpo --config household`; see `--help`."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.train_reranker_dpo import main

if __name__ == "__main__":
    run_command(main)
