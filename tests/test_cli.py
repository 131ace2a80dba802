"""The command line, as a person runs it: exit status, text, and what stays on disk."""

import asyncio
import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import arguments, on_a_terminal
from distributed import Client
from stored import Stored

import dasksolve
from dasksolve import Report, solve_zarr
from dasksolve.cli import RUNS, _client, _how_to_resume, main
from dasksolve.command.arguments import parser


def test_solve_then_check(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", *arguments(batch)]) == 3
    printed = capsys.readouterr()
    assert re.search(r"^ok +997$", printed.out, re.M)
    assert re.search(r"^singular +1$", printed.out, re.M)
    assert re.search(r"^flagged +123, 456, 789$", printed.out, re.M)
    assert printed.err == ""
    assert main(["check", *arguments(batch)]) == 3
    checked = capsys.readouterr().out
    assert re.search(r"^worst backward error +\d", checked, re.M)
    assert "every block of the output is what it is computed to be" in checked


def test_who_calls_it_keeps_their_own_signals_and_warnings(batch: Stored) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("not sent")

    before, show = signal.signal(signal.SIGTERM, mine), warnings.showwarning
    try:
        main(["solve", *arguments(batch, "--quiet")])
        assert signal.getsignal(signal.SIGTERM) is mine
        assert warnings.showwarning is show
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "terminal"])
def test_only_a_hangup_that_is_not_ignored_ends_a_job(
    ignored: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mine(*_: object) -> None:
        pass

    def hung_up(_: object) -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setitem(RUNS, "demo", hung_up)
    handler = signal.SIG_IGN if ignored else mine
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert main(["demo"]) == (0 if ignored else 129)
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ("interrupted" in capsys.readouterr().err) != ignored


def test_structures_have_the_long_words_of_scipy(batch: Stored) -> None:
    assert main(["solve", *arguments(batch, "--assume-a", "general", "--quiet")]) == 3
    assert main(["solve", *arguments(batch, "--resume", "--assume-a", "gen", "--quiet")]) == 3
    found = parser().parse_args(["bench", "--assume-a", "positive definite"])
    assert found.assume_a == "pos"


def test_nothing_flagged_is_zero(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    zarr.open_array(batch.a_path)[[123, 456, 789]] = 1 + batch.a[:3]
    zarr.open_array(batch.b_path)[789] = 1
    assert main(["solve", *arguments(batch, "--quiet")]) == 0
    assert capsys.readouterr() == ("", "")


def test_json(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    main(["solve", *arguments(batch, "--json")])
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["SINGULAR"] == 1
    assert report["flagged"] == [123, 456, 789]
    assert report["worst_rcond"] is None


def test_dry_run_writes_nothing(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", *arguments(batch, "--dry-run", "--memory", "300MiB")]) == 0
    printed = capsys.readouterr().out
    assert "1,000 systems in" in printed
    assert "of 300.00 MiB" in printed
    assert not Path(batch.out).exists()


@pytest.mark.parametrize("option", ["--json", "--json-lines"])
def test_a_plan_as_json(batch: Stored, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["solve", *arguments(batch, "--dry-run", option)]) == 0
    assert json.loads(capsys.readouterr().out)["batch_shape"] == [1000]


def test_resume_says_that_it_begins_what_is_not_there(
    batch: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", *arguments(batch, "--resume")]) == 3
    said = f"dasksolve: there is no output at {batch.out} yet: --resume begins one\n"
    assert capsys.readouterr().err == said
    assert main(["solve", *arguments(batch, "--resume")]) == 3
    assert capsys.readouterr().err == ""


def test_a_second_run_says_what_to_do(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    main(["solve", *arguments(batch, "--quiet")])
    assert main(["solve", *arguments(batch)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"dasksolve: {batch.out} exists; ")
    assert "--resume" in message
    assert "--overwrite" in message
    assert main(["solve", *arguments(batch, "--resume")]) == 3
    assert main(["solve", *arguments(batch, "--overwrite")]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--memory", "1kB"], "is too small", id="memory"),
        pytest.param(["--on-singular", "raise"], "1 system of a batch", id="raise"),
        pytest.param(
            ["--scheduler", "tcp://127.0.0.1:1"],
            "no dask scheduler answers",
            id="scheduler",
            marks=pytest.mark.slow,
        ),
        pytest.param(["--scheduler", "mine"], "no dask scheduler answers at mine", id="no address"),
    ],
)
def test_an_error_is_one_line_without_a_traceback(
    batch: Stored, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["solve", *arguments(batch, *options)]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("dasksolve: ")
    assert printed.count("\n") == 1
    # Collected later, in a thread that distributed starts, a client that never connected would wait
    # for the lock that its start holds.
    gc.collect()


@pytest.mark.slow
def test_systems_that_are_chunked_too_coarsely_are_a_warning(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "data")
    a = np.ones((2000, 100, 100)) + np.eye(100)
    group.create_array("a", data=a, chunks=(2000, 10, 100))
    group.create_array("b", data=np.ones((2000, 100)))
    paths = [str(tmp_path / name) for name in ("data/a", "data/b", "out")]
    run = subprocess.run(
        [sys.executable, "-m", "dasksolve.cli", "solve", *paths, "--memory", "200MiB", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    assert re.fullmatch(
        r"dasksolve: warning: a is stored in chunks of \(2000, 10, 100\), which split its systems "
        r"of \(100, 100\), so every byte of it is read \d+ times\. .*\n",
        run.stderr,
    )


def test_debug_shows_the_traceback(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", *arguments(batch, "--memory", "1kB", "--debug")]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_failed_blocks_are_named_after_the_report(
    batch: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(batch.a_path, "c/5/0/0").unlink()
    assert main(["solve", *arguments(batch)]) == 1
    printed = capsys.readouterr()
    assert "peak memory" in printed.out
    assert "chunk c/5/0/0 of a" in printed.err
    assert "--no-strict" in printed.err
    assert main(["solve", *arguments(batch, "--resume", "--no-strict")]) == 3


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["solve", "a"], id="too few"),
        pytest.param(["solve", "a", "b", "c", "--resume", "--overwrite"], id="both"),
        pytest.param(["solve", "a", "b", "c", "--workers", "many"], id="no number"),
        pytest.param(["solve", "a", "b", "c", "--workers", "0"], id="no threads"),
        pytest.param(["check", "a", "b", "c", "--workers", "-2"], id="fewer than none"),
        pytest.param(["report"], id="no output"),
        pytest.param(["solve", "a", "b", "c", "--assume-a", "POS"], id="no structure"),
        pytest.param(["solve", "a", "b", "c", "--on-singular", "cry"], id="no policy"),
        pytest.param(["solve", "a", "b", "c", "--memory", "lots"], id="no size"),
        pytest.param(["regress", "--ridge", "1", "y", "d", "out"], id="paths after numbers"),
        pytest.param(["check", "a", "b", "c", "--memory", "1e400"], id="infinite memory"),
        pytest.param(["demo", "--size", "0"], id="no bytes"),
        pytest.param(["bench", "--n", "0"], id="no order"),
        pytest.param(["bench", "--k", "M"], id="no columns"),
        pytest.param(["solve", "a", "b", "c", "d"], id="too many"),
        pytest.param(["solve", "a", "b", "c", "--dry"], id="no option"),
    ],
)
def test_usage_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    command = " ".join(["dasksolve", *words[:1]])
    assert usage.startswith(f"usage: {command}")
    assert error.startswith(f"{command}: error: ")


def test_no_word_at_all_is_answered_with_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: dasksolve COMMAND")
    assert all(f"\n    {command} " in said.err for command in RUNS)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["solve", "--help"]], ids=" ".join)
def test_help_that_cannot_be_written_is_an_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as context:
        context.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end:
            main(words)
    assert end.value.code == 1
    assert "standard output cannot be written to: No space left" in capsys.readouterr().err


def test_a_name_that_looks_like_an_option_is_said_to(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["solve", "a", "b", "-out", "--quiet"])
    said = capsys.readouterr().err
    assert said.endswith(
        "required: OUT; -out is no option: names that begin with - stand after --\n"
    )
    assert parser().parse_args(["solve", "--quiet", "--", "a", "b", "-out"]).out == "-out"


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--resum", "; did you mean --resume?"),
        ("--overwite=1", "; did you mean --overwrite?"),
        ("--wokers", "; did you mean --workers?"),
        ("--html", ""),
        ("-q", ""),
    ],
)
def test_an_option_that_is_meant_is_named(
    option: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["solve", "a", "b", "out", option])
    said = capsys.readouterr().err
    assert said.endswith(f"error: unrecognized arguments: {option}{meant}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "file"], "file exists and is not the output of a job; give what solve or"),
        (["solve", "a.npy", "b", "out"], r'a\.npy is a file.*; zarr\.create_array\("a\.zarr"'),
        (["demo", "--keep", "file"], "file is a file; give --keep the name of a folder"),
        (["demo", "--keep", "file/x"], "file is a file; give --keep the name of a folder"),
        (["demo", "--keep", "s3://x/y"], "s3://x/y is a URL, where --keep needs a local folder"),
    ],
)
def test_what_is_given_in_the_place_of_something_else_is_named(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    np.save("a.npy", np.eye(2))
    assert main(words) == 1
    assert re.search(said, capsys.readouterr().err)
    assert sorted(os.listdir()) == ["a.npy", "file"]


def test_a_current_folder_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["report", "out.zarr"]) == 1
    said = "out.zarr is meant from the current folder, which has been deleted"
    assert said in capsys.readouterr().err


def test_the_command_to_go_on_with_is_one_that_goes_on() -> None:
    words = ["regress", "--overwrite", "--ridge", "1", "--", "-y", "design.npy", "out"]
    options = parser().parse_args(words)
    options.words, options.solved = words, True
    _, _, command = _how_to_resume(options).partition("go on with: dasksolve ")
    again = parser().parse_args(shlex.split(command))
    assert (again.y, again.out, again.resume, again.overwrite) == ("-y", "out", True, False)
    with pytest.raises(SystemExit):  # an abbreviation, which would stay in that command
        parser().parse_args(["solve", "a", "b", "out", "--over"])


@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["anew", "resumed"])
def test_nothing_is_said_to_be_kept_where_nothing_was_done(
    batch: Stored,
    more: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dasksolve.job.write.prepare", interrupt)
    assert main(["solve", *arguments(batch, *more)]) == 130
    *_, said = capsys.readouterr().err.splitlines()
    told, _, command = said.partition(", go on with: dasksolve ")
    assert told == "dasksolve: interrupted; nothing was solved this time"
    assert not Path(batch.out).exists()
    monkeypatch.undo()
    assert main(shlex.split(command)) == 3


def test_without_standard_error_nothing_wrong_is_said_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as after 2>&-
    assert main(["report", "nowhere"]) == 1
    assert capsys.readouterr().out == ""


def test_a_page_of_an_output_whose_name_is_no_text(batch: Stored, tmp_path: Path) -> None:
    out = os.fsdecode(os.fsencode(batch.out) + b"\xe9")
    try:
        Path(out).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    assert main(["solve", batch.a_path, batch.b_path, out, "--quiet"]) == 3
    assert main(["report", out, "--html", str(tmp_path / "page.html")]) == 3
    assert r"\udce9" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_that_there_is_no_room_for_is_named(
    batch: Stored, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, new = small_disk / "page.html", small_disk / "new.html"
    assert main(["solve", batch.a_path, batch.b_path, batch.out, "--quiet"]) == 3
    page.write_text("an older one")
    (small_disk / "full").write_bytes(bytes((1 << 20) - 4096))
    for file in (page, new):
        assert main(["report", batch.out, "--html", str(file)]) == 1
        assert capsys.readouterr().err.endswith(f"No space left on device: {str(file)!r}\n")
    assert page.read_text() == "an older one"
    assert sorted(path.name for path in small_disk.iterdir()) == ["full", "page.html"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of Unix")
def test_a_page_is_replaced_where_it_is(batch: Stored, tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    assert main(["solve", batch.a_path, batch.b_path, batch.out, "--quiet"]) == 3
    page.write_text("an older one")
    page.chmod(0o640)
    link.symlink_to(page)
    assert main(["report", batch.out, "--html", str(link)]) == 3
    assert link.is_symlink()
    assert page.stat().st_mode & 0o777 == 0o640
    assert page.read_text(encoding="utf-8").startswith("<!")
    assert not [*tmp_path.glob(".*.partial")]


def test_a_page_that_cannot_be_replaced_is_written_where_it_is(
    batch: Stored, small_disk: Path
) -> None:
    page = small_disk / "page.html"
    assert main(["solve", batch.a_path, batch.b_path, batch.out, "--quiet"]) == 3
    page.write_text("an older one")
    subprocess.run(["mount", "--bind", page, page], check=True)  # as a container does with a file
    try:
        assert main(["report", batch.out, "--html", str(page)]) == 3
        assert page.read_text(encoding="utf-8").startswith("<!")
    finally:
        subprocess.run(["umount", page], check=True)
    assert [*small_disk.iterdir()] == [page]


@pytest.mark.parametrize("command", [[], ["solve"], ["check"], ["report"], ["demo"], ["bench"]])
def test_help_fits_80_columns(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parser().parse_args([*command, "--help"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    usage, nothing, *_ = printed.splitlines()
    assert usage.startswith(" ".join(["usage: dasksolve", *command]))
    assert nothing == ""
    assert ("example" in printed) is bool(command)


def test_a_scheduler_by_its_address(batch: Stored, two_processes: Client) -> None:
    address = two_processes.scheduler.address
    assert main(["solve", *arguments(batch, "--scheduler", address, "--quiet")]) == 3
    here = batch.x
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
    assert here.tobytes() == batch.x.tobytes()


def test_what_fails_in_the_loop_of_a_client_is_not_shown(
    two_processes: Client, caplog: pytest.LogCaptureFixture
) -> None:
    # As distributed's own answer to Ctrl-C does, where that comes early in a call.
    words = ["solve", "a", "b", "c", "--scheduler", two_processes.scheduler.address]
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise NameError("future")

    with ExitStack() as stack:
        client = _client(parser().parse_args(words), stack)
        client.loop.add_callback(fail)
        assert failed.wait(60)
        client.sync(asyncio.sleep, 0)  # in the same loop, after that
    assert not caplog.records


def test_a_terminal_sees_a_progress_bar(batch: Stored) -> None:
    last = on_a_terminal(["solve", *arguments(batch)]).strip().split("\r")[-1]
    expected = r"^solving 00:00 left \|.+\| (\d+)/\1 blocks, .*k? systems/s, .*B/s, 3 flagged$"
    assert re.search(expected, last)
    assert len(last) <= 80


@pytest.mark.slow
def test_quiet_shows_no_bar(batch: Stored) -> None:
    assert on_a_terminal(["solve", *arguments(batch, "--quiet")]) == ""


@pytest.mark.slow
def test_a_terminal_shows_at_once_what_a_job_begins_with_and_complaints_beside_it(
    batch: Stored,
) -> None:
    shown = on_a_terminal(["solve", *arguments(batch, "--resume")])
    notice = r"\rsolving: preparing \(kernels are compiled the first time\)\r +\r"
    complaint = r"dasksolve: there is no output at .*: --resume begins one\r\n"
    assert re.match(f"{notice}{complaint}{notice}" r"\rsolving \? left \|", shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param("PYTHONIOENCODING=ascii", r"flagged +0, 1, .*, \\u2026", id="ASCII alone"),
        pytest.param("2>&-", r"singular +1,000", id="standard error closed"),
    ],
)
def test_a_poor_terminal_sees_the_report(batch: Stored, words: str, shown: str) -> None:
    zarr.open_array(batch.a_path)[:] = 1
    zarr.open_array(batch.b_path)[789] = 1
    command = shlex.join([sys.executable, "-m", "dasksolve.cli", "solve", *arguments(batch)])
    line = f"{command} {words}" if ">" in words else f"{words} {command}"
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert run.returncode == 3, run.stderr
    assert re.search(shown, run.stdout)


@pytest.mark.slow
def test_a_poor_terminal_sees_the_help() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dasksolve.cli", "solve", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "scale_factor, \\u2026" in run.stdout


@pytest.mark.slow
def test_demo_cleans_up_and_prints_what_it_did(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dasksolve.cli", "demo", "--size", "8MiB"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    shown = [
        r"wrote +8.00 MiB: the normal equations .* 16,384 pixels",
        r"solved +all of them in .* systems/s",
        r"peak memory .* of a limit of 256.00 MiB:\n +the limit is kept\n",
        r"flagged +5 singular systems at .*\n +those of the pixels that were never seen, and no",
        r"checked +worst backward error .*\n +every other answer solves its system to rounding",
    ]
    assert re.search(".*".join(shown), run.stdout, re.S)
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert not list(tmp_path.iterdir())


def test_demo_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def but(call: Callable[..., Report], **found: float) -> Callable[..., Report]:
        return lambda *paths, **options: replace(call(*paths, **options), **found)

    solve, check = dasksolve.solve_zarr, dasksolve.check_zarr
    monkeypatch.setattr(dasksolve, "solve_zarr", but(solve, peak_memory=(256 << 20) + 1))
    monkeypatch.setattr(dasksolve, "check_zarr", but(check, worst_backward_error=1e-9))
    assert main(["demo", "--size", "1MiB"]) == 1
    printed = capsys.readouterr()
    assert "the limit is not kept\n" in printed.out
    assert "not every answer solves its system to rounding" in printed.out
    assert "did not do what it should have" in printed.err


def test_demo_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    assert main(["demo", "--size", "1MiB", "--keep", str(tmp_path / "kept")]) == 0
    assert zarr.open_array(tmp_path / "kept/solved.zarr/x").shape == (2048, 8)


def test_demo_keeps_nothing_in_a_folder_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--size", "1MiB", "--keep", ""])
    assert "argument --keep: the name of a folder is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_would_end_with_the_command_is_no_output(
    batch: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", batch.a_path, batch.b_path, "memory://x.zarr"]) == 1
    assert "memory://x.zarr would be in the memory of this process" in capsys.readouterr().err


def test_demo_refuses_a_limit_before_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--size", "8MiB", "--memory", "1MiB", "--keep", str(tmp_path / "kept")]
    assert main(words) == 1
    assert "memory_limit=1.00 MiB is too small" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["100PiB", "1e30"])
def test_demo_refuses_what_the_disk_has_no_room_for(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--size", size, "--keep", str(tmp_path / "kept")]) == 1
    assert f"{tmp_path / 'kept'} has" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_demo_says_what_to_do_without_a_temporary_folder() -> None:
    import resource

    ended = subprocess.run(
        [sys.executable, "-m", "dasksolve", "demo"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # as on a full disk
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    said = r"dasksolve: No usable temporary directory found in .*; name one with --keep\n"
    assert re.fullmatch(said, ended.stderr)


def test_demo_keeps_without_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert main(["demo", "--size", "1MiB", "--keep", str(tmp_path / "kept")]) == 0
    assert os.listdir(tmp_path) == ["kept"]


def test_demo_keeps_what_it_kept_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "normal_equations.zarr").mkdir()
    assert main(["demo", "--size", "1MiB", "--keep", str(tmp_path)]) == 1
    assert "is there already; give --keep another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_begins_on_a_line_of_its_own(batch: Stored) -> None:
    shown = on_a_terminal(["solve", *arguments(batch)], stdout=True)
    assert "\r\noutput " in shown
    assert "blocks" not in shown.split("\r\noutput ")[1].split("\r\n", 1)[1].split("\r\n", 1)[1]


@pytest.fixture
def stack(tmp_path: Path) -> list[str]:
    """A, B and OUT of a regression: a stack of 6 by 8 series, none of them flagged."""
    times = np.linspace(-1, 1, 20)
    y = 1 + times[:, None, None] + np.random.default_rng(0).random((20, 6, 8))
    zarr.create_array(tmp_path / "y.zarr", data=y, chunks=(1, 6, 8))
    np.save(tmp_path / "design.npy", np.stack([np.ones(20), times, times**2], axis=1))
    return [str(tmp_path / name) for name in ("y.zarr", "design.npy", "fit.zarr")]


def test_regress_then_check_then_report(
    stack: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regress", *stack, "--dry-run"]) == 0
    assert "48 series in 1 block of (6, 8)" in capsys.readouterr().out
    assert main(["regress", *stack, "--json", "--ridge", "0.1", "--covariance"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unit"], report["counts"]["OK"], report["flagged"]) == ("series", 48, [])
    assert main(["check", *stack]) == 0
    assert re.search(r"^series +48 in 1 block$", capsys.readouterr().out, re.M)
    assert main(["report", stack[2]]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^each +20 observations, 3 coefficients, float64$", printed, re.M)
    assert re.search(r"^options .*, on_deficient=nan, covariance=True, ridge=0\.1$", printed, re.M)
    assert re.search(r"^y +/.*/y\.zarr$", printed, re.M)
    assert re.search(r"^design +/.*/design\.npy$", printed, re.M)
    assert main(["regress", *stack, "--resume"]) == 1
    assert "options.ridge was [0.1, 0.1, 0.1], is now [0.0, 0.0, 0.0]" in capsys.readouterr().err
    assert main(["regress", *stack, "--overwrite", "--min-count", "21", "--quiet"]) == 3


def test_what_cannot_be_fitted_is_said_in_a_line(
    stack: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    y, design, out = stack
    for words, text in (
        ((y, y, out), "design must be of shape (P, N)"),
        ((design, y, out), "y must be a zarr array"),
        ((y, out, out), "design: there is no zarr array at"),
        ((y, design, out, "--axis", "1"), "y has 6 observations along axis 1, and design 20"),
        ((y, design, out, "--weights", "none.npy"), "weights: there is no file"),
    ):
        assert main(["regress", *words]) == 1
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    assert not Path(out).exists()
