"""Generates the model cards of a run from the records of its stages: no number is typed by hand.

Usage:
    rabtriever card runs/mine
    rabtriever card runs/mine --license cc-by-nc-4.0 data=cc-by-nc-4.0 --base_model Qwen/Qwen3-0.6B
    python -m model_cards.generate runs/household --results quickstart_household   # in a clone: adds that benchmark's
    table

The reports and plots of the evaluation are copied next to each card, into <stage>/model/evaluation.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ..cards.generate import CardArguments, write_cards
from ..cards.licenses import HELP, parse_licenses


def main(argv: Sequence[str] | None = None, table: Callable[[str], str] | None = None) -> None:
    """Writes the cards of the run that the command line names.

    In a clone, `table` turns the name of a benchmark's result into its table as Markdown.
    """
    parser = argparse.ArgumentParser(
        prog="rabtriever card" if table is None else "python -m model_cards.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--license", nargs="+", default=[], metavar="[WHAT=]LICENCE", help=HELP)
    parser.add_argument("--base_model", help="Hub id that the model to release started from; default: the recipe's")
    parser.add_argument("--datasets", nargs="+", help="Hub ids of the data; default: the task's")
    if table is not None:
        words = "name of a result in benchmarks/results; its table over seeds is added"
        parser.add_argument("--results", metavar="NAME", help=words)
    parser.set_defaults(results=None)
    given = parser.parse_args(argv)
    added = None if table is None or given.results is None else table(given.results)
    about = CardArguments(parse_licenses(given.license), given.base_model, given.datasets, added)
    write_cards(given.run, about)
