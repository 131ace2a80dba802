"""Speaks on standard output and error, though their readers may leave before a job is done."""

import os
import sys
from contextlib import suppress
from typing import TextIO

from dasksolve.job.progress import aside
from dasksolve.job.report import printable
from dasksolve.storage import secrets


def say(text: str, end: str = "\n") -> bool:
    """Print on standard output; where that cannot be, say so once, and return False."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _send_nowhere(sys.stdout)
        complain(f"warning: standard output cannot be written to: {error.strerror}")
        return False
    return True


def complain(text: str) -> None:
    """Print on standard error, if that can be had: no secret of a URL, no control character."""
    if sys.stderr is None:  # after 2>&-: print would take standard output
        return
    text = printable(secrets.shown(text), but="\n")
    try:
        with aside():
            print(f"dasksolve: {text}", file=sys.stderr, flush=True)
    except OSError:
        _send_nowhere(sys.stderr)


def _send_nowhere(stream: TextIO) -> None:
    """Drop what is still to come, lest each line fail anew, and Python itself when it ends."""
    with suppress(OSError):  # a stream of a test's is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
