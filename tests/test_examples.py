"""Every example runs, and prints what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTED = {
    "on_dask.py": "largest residual",
}
SLOW = {
    "in_memory.py": "99,998 of 100,000 systems solved",
    "larger_than_memory.py": "blocks were done",
    "on_a_cluster.py": "50,000 in",
    "chemistry_newton.py": "mean fractions of A, B, C: 0.833, 1.66e-05, 0.167",
    "frequency_response.py": "largest answer at 0.92 Hz; first undamped mode at 0.92 Hz",
    "local_analysis.py": "error of the mean (RMS): 1.04 before, 0.32 after",
    "numba_function.py": "cells without a solution: [123]",
    "climate_trend.py": "68% of the points are within one standard error",
    "pixel_regression.py": "1252 pixels were never seen, 95.0% of the others have a trend within",
}
PICTURES = ("frequency_response.py", "pixel_regression.py")


def test_every_example_is_run() -> None:
    assert sorted([*PRINTED, *SLOW]) == sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_every_example_is_short() -> None:
    assert all(len(path.read_text().splitlines()) < 80 for path in EXAMPLES.glob("*.py"))


def test_every_example_says_what_to_install() -> None:
    extras = {"matplotlib": "plot", "xarray": "xarray"}
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        used = [
            extras[name] for name in extras if re.search(rf"^(import|from) {name}\b", text, re.M)
        ]
        package = f'"dasksolve[{",".join(used)}]"' if used else "dasksolve"
        assert text.split('"""')[1].endswith(f"\n\nNeeds: pip install {package}\n"), path.name


def run(folder: Path, *words: str) -> str:
    command = [sys.executable, "-W", "error", *words]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_a_map_in_letters_where_matplotlib_is_not_installed(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['matplotlib'] = None"
    path = EXAMPLES / "pixel_regression.py"
    printed = run(tmp_path, "-c", f"{hidden}; import runpy; runpy.run_path({str(path)!r})")
    rows = printed.partition("- browning\n")[2].splitlines()
    assert [len(row) for row in rows] == [40] * 15
    assert {*"".join(rows)} == {"+", "-", " "}
    assert rows[-1].lstrip().startswith("++++")  # 0.01 sin(2 x) cos(1.5 y)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", [*PRINTED, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_example(name: str, tmp_path: Path) -> None:
    assert {**PRINTED, **SLOW}[name] in run(tmp_path, str(EXAMPLES / name))
    pictures = [path.name for path in tmp_path.iterdir()]
    assert pictures == ([name.replace(".py", ".png")] if name in PICTURES else [])


@pytest.mark.slow
def test_the_cluster_example_takes_an_address(two_processes: Client, tmp_path: Path) -> None:
    words = str(EXAMPLES / "on_a_cluster.py"), two_processes.scheduler.address
    assert "2 workers" in run(tmp_path, *words)
