"""Distils the teacher into a student: `python -m training.distill --config household`; `--help` lists the options."""

from modeling_rabtriever.stages.command import run_command
from modeling_rabtriever.stages.distill import main

if __name__ == "__main__":
    run_command(main)
