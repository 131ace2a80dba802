"""The README: its code runs, and its commands are those of the project."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dasksolve.command.arguments import parser

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.mark.slow
def test_the_python_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    *first, cluster = blocks("python")
    printed = ""
    for code in ("\n".join(first), cluster):  # worker processes import the script that starts them
        (tmp_path / "readme.py").write_text(code)
        command = [sys.executable, "-W", "error", "readme.py"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        printed += run.stdout
    assert "50,000 in" in printed
    assert (tmp_path / "on_cluster.zarr" / "x").is_dir()


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_the_shell_lines_are_words_that_the_command_line_knows(line: str) -> None:
    for command in line.split(" && "):
        program, *words = shlex.split(command)
        if program.endswith("dasksolve"):
            parser().parse_args(words)
        else:
            assert program in ("python3", ".venv/bin/pip", ".venv/bin/pytest")


def test_files_that_scripts_and_pages_name_are_there() -> None:
    root = Path(__file__).parent.parent
    named = re.compile(r"\b(?:tests|examples|dasksolve)/[\w/]+\.(?:py|md|png)")
    pages = [path for folder in (".ci", ".github") for path in (root / folder).rglob("*")]
    texts = [README, *(page.read_text(encoding="utf-8") for page in pages if page.is_file())]
    found = {name for text in texts for name in named.findall(text)}
    assert "tests/bits.py" in found
    assert sorted(name for name in found if not (root / name).exists()) == []
