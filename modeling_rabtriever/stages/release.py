"""Publishes a trained model on the Hub: checks its folder, pushes it as one commit, and tags the commit.

Usage:
    python -m training.release --model runs/mine/student/model --repo org/name --license apache-2.0 data=cc-by-4.0
    python -m training.release --model runs/mine/teacher/model --repo org/name --private --tag v1.0

Pushes the weights, model code, processor, card, reports and plots in the folder. The check also loads the folder in a
separate process WITHOUT this package and runs the Python files in it there, as trust_remote_code=True will on a user's
machine: release only folders you made yourself. The given licences and the name of the repository are written into the
card in the folder.

A second call pushes only what has changed since. If a push fails, the repository stays as it was, and large files that
were already uploaded are not sent again. The token comes from HF_TOKEN or `hf auth login`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..cards.licenses import HELP, parse_licenses
from ..cards.publishing import Release, release
from . import program


def main(argv: Sequence[str] | None = None) -> Release:
    """Checks and publishes the folder that the command line names.

    Raises:
        ValueError: the folder, its card, the name of the repository or the tag is unusable, or the Hub refuses the
        token. HfHubHTTPError, RuntimeError: the Hub or its storage of large files failed; call it again to continue.
    """
    parser = argparse.ArgumentParser(
        prog=program("release"),
        description=(__doc__ or "").replace("python -m training.release", program("release")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model: <run>/{teacher,student}/model")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; may be new")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing to main")
    parser.add_argument("--license", nargs="+", default=[], metavar="[WHAT=]LICENCE", help=HELP)
    parser.add_argument("--tag", metavar="vX.Y", help="tag of this release; an existing tag is never moved")
    given = parser.parse_args(argv)
    licenses = parse_licenses(given.license)
    found = release(given.model, given.repo, licenses, given.private or None, given.create_pr, given.tag)
    print(f"{found.repo}: {'released' if found.new else 'nothing new'}, commit {found.commit}, {found.url}")
    return found
