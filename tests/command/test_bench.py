"""`dasksolve bench`: what it prints, not how fast anything is."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dasksolve import regress
from dasksolve.cli import main
from dasksolve.command import bench, bench_regress


def run(*words: str) -> str:
    command = [sys.executable, "-m", "dasksolve.cli", "bench", "--rounds", "1", *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_the_table_has_a_row_a_case_in_80_columns() -> None:
    head, columns, *rows = run("--n", "3", "64", "--dtype", "float64").splitlines()
    assert "; dasksolve" in head
    assert columns.split()[:4] == ["dtype", "N", "ns/system", "NumPy"]
    assert [row.split()[:2] for row in rows] == [["float64", "3"], ["float64", "64"]]
    assert rows[0].endswith("% mem")
    assert rows[1].endswith("% dot")
    assert max(map(len, [columns, *rows])) <= 80


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "sent", "code"),
    [
        (os.killpg, signal.SIGINT, 130),
        (os.kill, signal.SIGINT, 143),
        (os.kill, signal.SIGTERM, 143),
    ],
    ids=["Ctrl-C", "INT", "TERM"],
)
def test_an_interruption_is_told_once(
    send: Callable[[int, int], None], sent: int, code: int
) -> None:
    words = ["bench", "--n", "2", "--dtype", "float64", "--rounds", "1000000"]
    # A cluster that was started here has set them, and there would be one process alone.
    environment = {k: v for k, v in os.environ.items() if k not in bench.ONE_THREAD}
    with subprocess.Popen(
        [sys.executable, "-m", "dasksolve.cli", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # by the process that measures
        send(process.pid, sent)
        _, errors = process.communicate(timeout=240)
    assert errors == "dasksolve: interrupted\n"
    assert process.returncode == code


@pytest.mark.slow
def test_a_batch_in_the_cache_is_measured_against_matrix_products() -> None:
    words = ("--in-cache", "--n", "3", "64", "--dtype", "float64")
    _, _, *rows = run(*words).splitlines()
    assert [row.endswith("% dot") for row in rows] == [True, True]
    measured = json.loads(run(*words, "--json"))["rows"]
    assert [row["systems"] for row in measured] == [3632, 16]


@pytest.mark.slow
def test_workers_are_compared_with_one() -> None:
    _, columns, row = run("--n", "3", "--dtype", "float64", "--workers", "2").splitlines()
    assert "one worker" in columns
    assert row.split()[:2] == ["float64", "3"]


@pytest.mark.slow
def test_a_structure_is_compared_with_the_general_kernel() -> None:
    words = ("--n", "3", "--dtype", "complex64", "--assume-a", "pos")
    _, columns, row = run(*words).splitlines()
    assert columns.split()[:4] == ["dtype", "N", "ns/system", "gen"]
    assert row.split()[:2] == ["complex64", "3"]


@pytest.mark.slow
def test_json_and_plot(tmp_path: Path) -> None:
    picture = tmp_path / "ratio.png"
    words = ("--n", "3", "--dtype", "float64", "--json", "--plot", str(picture))
    (row,) = json.loads(run(*words))["rows"]
    assert row["ratio"] == pytest.approx(row["baseline_nanoseconds"] / row["nanoseconds"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_there_is_no_room_for_is_named(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = small_disk / "ratio.png"
    (small_disk / "full").write_bytes(bytes(1 << 20))
    words = ["--n", "3", "--systems", "1", "--dtype", "float64", "--plot", str(picture)]
    assert main(["bench", *words]) == 1
    assert capfd.readouterr().err.endswith(f"No space left on device: {str(picture)!r}\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("ratio.foo", r"ends in one of .*\.pdf, .*\.png", id="no picture"),
        pytest.param("ratio", r"ends in one of", id="no ending"),
        pytest.param("", r"ends in one of", id="no name"),
        pytest.param("missing/ratio.png", "there is no folder (?!~)", id="no folder"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_before_it_measures(
    name: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(_options: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["bench", "--plot", name and f"~/{name}"]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_a_batch_is_larger_than_a_cache_and_fills_the_lanes(dtype: str) -> None:
    a, b = bench.batch(24, np.dtype(dtype))
    assert a.dtype == b.dtype == dtype
    assert a.nbytes > 31 << 20
    assert len(a) == len(b)
    assert len(a) % 16 == 0


@pytest.mark.slow
def test_regressions_are_compared_with_what_people_write() -> None:
    words = ("--regress", "--n", "2", "--systems", "600", "--observations", "20")
    _, columns, *rows = run(*words).splitlines()
    assert columns.split()[:6] == ["dtype", "layout", "P", "N", "ns/series", "reading"]
    assert [row.split()[:4] for row in rows] == [
        [dtype, layout, "20", "2"]
        for dtype in ("float64", "float32")
        for layout in ("time-major", "series-major")
    ]
    assert max(map(len, [columns, *rows])) <= 80


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n", "6", "30", "--observations", "20"], "--n 30 is more columns than --observations"),
        (["--observations", "5"], "--n 6 is more columns than"),
        (["--dtype", "complex64"], "measures float64 and float32, not complex64"),
        (["--dtype", "float64", "complex64"], "measures float64 and float32, not complex64"),
        (["--plot", "p.png", "--k", "N", "--in-cache"], "nothing with --k, --in-cache, --plot"),
    ],
)
def test_no_regression_is_left_out_without_a_word(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--regress", *words]) == 1
    assert expected in capsys.readouterr().err


def test_what_only_regressions_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--observations", "60"]) == 1
    assert "without --regress does nothing with --observations" in capsys.readouterr().err


def test_normal_equations_and_the_loop_fit_the_same() -> None:
    design, y = bench_regress.series(3, 30, 20, np.dtype(float))
    wanted = regress(y, design).coef.T
    np.testing.assert_allclose(bench_regress.one_by_one(y.T, design), wanted, atol=1e-10)
    for axis, values in enumerate((y, y.T)):
        found = bench_regress.normal_equations(values, design, axis)
        np.testing.assert_allclose(found, wanted, atol=1e-10)
