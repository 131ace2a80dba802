"""Whose Ctrl-C is the command line's own while it imports: its, and no other program's."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dasksolve.command.interrupt import is_command


@pytest.mark.parametrize(
    ("argv", "orig_argv", "ours"),
    [
        (["-m", "demo"], ["python", "-m", "dasksolve.cli", "demo"], True),
        (["-m"], ["python", "-X", "dev", "-Im", "dasksolve.cli"], True),
        (["-m", "demo"], ["python", "-mdasksolve.cli", "demo"], True),
        (["/opt/bin/dasksolve", "demo"], ["python", "/opt/bin/dasksolve", "demo"], True),
        (["-m"], ["python", "-m", "mine.run"], False),
        (["-m", "dasksolve.cli"], ["python", "-m", "mine", "dasksolve.cli"], False),
        (["-m"], ["python", "-m", "mine.dasksolve.cli"], False),
        (["-c"], ["python", "-c", "import dasksolve"], False),
        ([""], ["python"], False),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_what_is_the_command_line(argv: list[str], orig_argv: list[str], ours: bool) -> None:
    assert is_command(argv, orig_argv) is ours


@pytest.mark.parametrize(
    ("module", "setting", "said"),
    [
        ("dasksolve", {"DASKSOLVE_VECTOR_BYTES": "7"}, "DASKSOLVE_VECTOR_BYTES='7' is not .*"),
        ("dasksolve.cli", {"DASKSOLVE_VECTOR_BYTES": "7"}, "DASKSOLVE_VECTOR_BYTES='7' is not .*"),
        (
            "dasksolve",
            {"NUMBA_NUM_THREADS": "0"},
            r".*\(of numba, with (NUMBA_\w+=[^,]*, )*NUMBA_NUM_THREADS=0(, NUMBA_[^,]*)* in .*\)",
        ),
    ],
)
def test_a_setting_that_is_refused_is_told_in_a_line(
    module: str, setting: dict[str, str], said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, "demo"],
        env={**os.environ, **setting},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert re.fullmatch(rf"dasksolve: {said}\n", ended.stderr)


PROGRAM = """
import sys
try:
    print("ready", flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    print("tidied up")
"""


def test_a_package_that_imports_dasksolve_keeps_its_own_ctrl_c(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("import dasksolve\n")
    (package / "run.py").write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, "-m", "mine.run"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "tidied up\n"
        assert process.wait() == 0


IN_TEXT = """
import sys
from dasksolve import cli
cli.RUNS["report"] = lambda options: exec("raise KeyboardInterrupt")
sys.exit(cli.main(["report", "nowhere"]))
"""


def test_ctrl_c_while_text_is_executed_ends_with_130_too(tmp_path: Path) -> None:
    """As dataclasses and numba do, and `python -m` would end by the signal, after what it said."""
    (tmp_path / "run.py").write_text(IN_TEXT)
    ended = subprocess.run(
        [sys.executable, "-m", "run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "dasksolve: interrupted\n")
