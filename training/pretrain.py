"""Pretrains a backbone from scratch: `python -m training.pretrain --config household`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.pretrain import main

if __name__ == "__main__":
    run_command(main)
