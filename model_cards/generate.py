"""Writes a run's cards, with a benchmark's table if asked: `python -m model_cards.generate runs/mine`; see --help."""

from benchmarks.tables import table
from modeling_rabtriever.stages.card import main
from modeling_rabtriever.stages.command import run_command

if __name__ == "__main__":
    run_command(lambda: main(table=table))
