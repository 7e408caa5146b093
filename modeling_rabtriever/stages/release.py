"""Publishes a trained model on the Hub: checks its folder, then pushes everything as one commit, and tags it.

Usage:
    python -m training.release --model runs/mine/student/model --repo org/name --license apache-2.0 data=cc-by-4.0
    python -m training.release --model runs/mine/teacher/model --repo org/name --private --tag v1.0

Pushed are weights, model code, processor, card, and the evaluation's reports and plots, as they lie in the folder. The
check loads the folder once more in a process of its own WITHOUT this package and runs the Python files in it there, as
trust_remote_code=True will on a user's machine: release only folders you made yourself. Licences that are given, and
the repository's name, are written into the folder's card.

Called again, it pushes what has changed since, or nothing. A push that fails leaves the repository as it was; large
files that had arrived by then are not sent twice. The token is HF_TOKEN's, or the one of `hf auth login`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..cards.licenses import HELP, parse_licenses
from ..cards.publishing import Release, release
from . import program


def main(argv: Sequence[str] | None = None) -> Release:
    """Checks and publishes the folder the command line names.

    Raises:
        ValueError: the folder, its card, the repository's name or the tag is not fit, or the Hub refuses the token.
        HfHubHTTPError, RuntimeError: the Hub failed, or its store of large files did; calling again goes on.
    """
    parser = argparse.ArgumentParser(
        prog=program("release"),
        description=(__doc__ or "").replace("python -m training.release", program("release")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model: <run>/{teacher,student}/model")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; made if it is new")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing to main")
    parser.add_argument("--license", nargs="+", default=[], metavar="[WHAT=]LICENCE", help=HELP)
    parser.add_argument("--tag", metavar="vX.Y", help="name this release; a tag never moves")
    given = parser.parse_args(argv)
    licenses = parse_licenses(given.license)
    found = release(given.model, given.repo, licenses, given.private or None, given.create_pr, given.tag)
    print(f"{found.repo}: {'released' if found.new else 'nothing new'}, commit {found.commit}, {found.url}")
    return found
