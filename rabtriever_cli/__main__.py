"""`python -m rabtriever_cli` is the command `rabtriever`."""

import sys

from . import main

sys.exit(main())
