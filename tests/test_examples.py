"""Every example runs, and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTED = {
    "in_memory.py": "99,998 of 100,000 systems solved",
    "larger_than_memory.py": "blocks were done",
    "on_a_cluster.py": "50,000 in",
    "on_dask.py": "largest residual",
}


def test_every_example_is_run() -> None:
    assert sorted(PRINTED) == sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(*words: str) -> str:
    command = [sys.executable, "-W", "error", *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_example(name: str) -> None:
    assert PRINTED[name] in run(str(EXAMPLES / name))


def test_the_cluster_example_takes_an_address(two_processes: Client) -> None:
    printed = run(str(EXAMPLES / "on_a_cluster.py"), two_processes.scheduler.address)
    assert "2 workers" in printed
