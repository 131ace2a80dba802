"""What ends the command line while it still imports what it needs: in one line, as later on."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any


def _end(*_: object) -> None:
    os.write(2, b"dasksolve: interrupted\n")
    os._exit(130)  # an exception would surface in the middle of somebody else's import


def _end_in_a_line(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say what is wrong with the settings, such as a variable of the environment."""
    if isinstance(error, ValueError) and "--debug" not in sys.argv:
        theirs = ", ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k[:6] == "NUMBA_")
        where = f" (of numba, with {theirs} in the environment)" if theirs else ""
        own = "DASKSOLVE_" in str(error)
        print(f"dasksolve: {error}{'' if own else where}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def importing() -> bool:
    """Whether the command line has yet to begin."""
    return signal.getsignal(signal.SIGINT) is _end


def is_command(argv: list[str], orig_argv: list[str]) -> bool:
    """Whether this process is the command line, and not a program that imports dasksolve."""
    if argv[0] != "-m":
        return Path(argv[0]).name in ("dasksolve", "dasksolve.exe")
    # Python calls every module so until it has found it: what comes before the arguments names it.
    return re.fullmatch(r"(-\w*m)?dasksolve(\.cli)?", orig_argv[-len(argv)]) is not None


if is_command(sys.argv, sys.orig_argv):
    sys.excepthook = _end_in_a_line
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
