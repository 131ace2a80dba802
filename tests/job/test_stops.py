"""A job that is stopped at any of its calls: going on, or anew, gives what was never disturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stops


def stopped(folder: Path, which: str, *words: str) -> dict[str, Any]:
    """Stop a small job again and again; return what came of it."""
    command = [sys.executable, "-W", "error", stops.__file__, str(folder), which, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize(("which", "calls"), [("first", 60), ("resume", 15), ("overwrite", 80)])
def test_at_every_call_that_changes_the_disk(
    tmp_path: Path, which: str, calls: int, sent: str
) -> None:
    found = stopped(tmp_path, which, "--signal", sent)
    assert found["wrong"] == []
    assert found["stops"] > calls


@pytest.mark.slow
@pytest.mark.parametrize(("which", "calls"), [("first", 14), ("resume", 5), ("overwrite", 20)])
def test_a_regression_that_is_killed_goes_on_to_the_same_bits(
    tmp_path: Path, which: str, calls: int
) -> None:
    found = stopped(tmp_path, which, "--series", "--step", "7")
    assert found["wrong"] == []
    assert found["stops"] > calls


def test_at_some_calls_that_change_the_disk(tmp_path: Path) -> None:
    found = stopped(tmp_path, "overwrite", "--first", "17", "--step", "40")
    assert found["wrong"] == []
    assert found["stops"] > 0
