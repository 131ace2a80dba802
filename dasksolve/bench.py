"""`dasksolve bench`: the kernels against NumPy on this machine, as a table."""

import argparse


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The words that `dasksolve bench` understands."""


def run(options: argparse.Namespace) -> int:
    """Measure and print the table."""
    return 0
