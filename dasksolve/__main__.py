"""`python -m dasksolve`: the command line, where its script is not on the path."""

import sys

from dasksolve.cli import main

sys.exit(main())
