"""How a zarr job is watched while it runs: a bar for a person, JSON lines for a program."""

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dasksolve.job.report import Report

Progress = Callable[[Report], None]


def watcher(progress: Progress | bool | None, what: str) -> Progress | None:
    """Return what is to be called after every block; True: a bar, where there is one to see it."""
    if progress is None:
        return None
    if isinstance(progress, bool | np.bool_):
        if not progress or not (on_terminal() or in_notebook()):
            return None
        bar = Bar(what)
        if on_terminal():
            bar.start()
        return bar
    if not callable(progress):
        raise TypeError(f"progress={progress!r} is neither a function of a report nor True")
    return progress


@contextmanager
def closed(watch: Progress | None) -> Iterator[None]:
    """Close a bar, whatever becomes of the job, so that what follows has a line of its own."""
    try:
        yield
    finally:
        if isinstance(watch, Bar):
            watch.close()


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()  # None after 2>&-


def in_notebook() -> bool:
    """Whether tqdm draws its bar as a widget."""
    return any(kind.__name__ == "tqdm_notebook" for kind in _tqdm().__mro__)


@contextmanager
def aside() -> Iterator[None]:
    """Within: print on standard error, from which a bar is gone meanwhile."""
    if "tqdm.auto" not in sys.modules:
        yield
        return
    with _tqdm().external_write_mode(file=sys.stderr):
        yield


def _tqdm() -> Any:
    from tqdm.auto import tqdm  # in a notebook it warns of widgets that only a bar needs

    return tqdm


def _bytes_per_second(report: Report) -> float:
    return (report.bytes_read + report.bytes_written) / max(report.seconds, 1e-9)


class Bar:
    """A progress bar: blocks, systems and bytes in a second, systems flagged, time left."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.notice: Any = None
        self.bar: Any = None

    def start(self) -> None:
        """Say why no block is done for a while, until one is."""
        text = f"{self.what}: preparing (kernels are compiled the first time)"
        self.notice = _tqdm()(bar_format=text, leave=False, dynamic_ncols=True)

    def __call__(self, report: Report) -> None:
        """Show where the job is."""
        tqdm = _tqdm()
        if self.bar is None:
            self.close()
            self.bar = tqdm(
                total=report.blocks,
                desc=self.what,
                unit="block",
                dynamic_ncols=True,
                bar_format="{desc} {remaining} left |{bar}| {n_fmt}/{total_fmt} blocks{postfix}",
            )
        flagged, now = report.flagged_count, report.solved - report.systems_resumed
        self.bar.set_postfix_str(
            f"{tqdm.format_sizeof(now / max(report.seconds, 1e-9))} {report.unit}/s, "
            f"{tqdm.format_sizeof(_bytes_per_second(report), 'B')}/s, "
            f"{tqdm.format_sizeof(flagged) if flagged > 999 else flagged} flagged",
            refresh=False,
        )
        self.bar.update(report.blocks_done - self.bar.n)
        if report.blocks_done == report.blocks:
            self.close()

    def close(self) -> None:
        """Leave the bar where it is, and go to a line of its own."""
        for drawn in (self.notice, self.bar):
            if drawn is not None:
                drawn.close()
        self.notice = self.bar = None


class Lines:
    """JSON objects, each on a line of its own: one a second, and at once the first and the last."""

    def __init__(self, what: str, say: Callable[[str], Any], interval: float = 1.0) -> None:
        self.what, self.say, self.interval = what, say, interval
        self.begun = time.perf_counter()
        self.last = -math.inf
        self.report: Report | None = None
        self.came = self.begun
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Speak from now on, also while no block is done, until it is closed."""
        self._speak()
        self.thread = threading.Thread(target=self._go_on, daemon=True)
        self.thread.start()

    def __call__(self, report: Report) -> None:
        """Say where the job is."""
        with self.lock:
            first, self.report, self.came = self.report is None, report, time.perf_counter()
            due = self.came - self.last >= self.interval
            if first or due or report.blocks_done == report.blocks:
                self._speak()

    def close(self) -> None:
        """Fall silent."""
        self.closing.set()
        if self.thread is not None:
            self.thread.join()

    def _go_on(self) -> None:
        while not self.closing.wait(self.interval / 10):
            with self.lock:
                if time.perf_counter() - self.last >= self.interval:
                    self._speak()

    def _speak(self) -> None:
        self.last = time.perf_counter()
        if self.report is None:
            event, numbers = "preparing", {"seconds": round(self.last - self.begun, 3)}
        else:
            event = self.what
            numbers = _numbers(self.report, self.report.seconds + self.last - self.came)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.say(json.dumps({"event": event, "time": now, **numbers}))


def _numbers(report: Report, seconds: float) -> dict[str, Any]:
    """How far a job is, so many seconds after it began."""
    now = report.blocks_done - report.blocks_resumed
    left = (report.blocks - report.blocks_done) * report.seconds / now if now else None
    return {
        "blocks": report.blocks,
        "blocks_done": report.blocks_done,
        "blocks_resumed": report.blocks_resumed,
        "systems": report.systems,
        "systems_done": report.solved,
        "flagged_count": report.flagged_count,
        "seconds": round(seconds, 3),
        "seconds_left": None if left is None else round(left, 3),
        "bytes_per_second": round(_bytes_per_second(report)),
    }
