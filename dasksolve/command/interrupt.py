"""Ctrl-C while the command line still imports what it needs: end at once, with one line."""

import os
import signal
import sys
from pathlib import Path

# What a console script is called, and what `python -m dasksolve.cli` is called meanwhile.
_COMMANDS = ("dasksolve", "dasksolve.exe", "-m")


def _end(*_: object) -> None:
    os.write(2, b"dasksolve: interrupted\n")
    os._exit(130)  # an exception would surface in the middle of somebody else's import


def importing() -> bool:
    """Whether the command line has yet to begin."""
    return signal.getsignal(signal.SIGINT) is _end


if (
    Path(sys.argv[0]).name in _COMMANDS
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _end)
