"""How a zarr job went over time, kept in the attributes of its output."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from dasksolve.errors import BlockErrors
from dasksolve.job.output import Output
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.storage import documents, internals
from dasksolve.storage.documents import Document

ATTRIBUTE = "dasksolve_history"
_RUNS = 10
_SAMPLES = 200
_FAILED, _LETTERS = 3, 400  # of the blocks that failed, and of each
_COUNTS = ("bytes_read", "bytes_written", "blocks_resumed", "peak_memory")


class Run:
    """One run of a job: how many systems were done after how many seconds, and so on."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.samples: list[tuple[float, int, float, int]] = []
        self.seen, self.every = 0, 1
        self.last: Report | None = None
        self.failed: list[str] = []

    def note(self, report: Report) -> None:
        """Remember how far the job is."""
        self.last = report
        self.seen += 1
        if self.seen % self.every == 0:
            self.samples.append(_sample(report))
        if len(self.samples) == _SAMPLES:
            self.samples, self.every = self.samples[1::2], 2 * self.every

    def record(self) -> dict[str, Any]:
        """What is kept of it."""
        assert self.last is not None
        end = _sample(self.last)
        samples = [*self.samples, end] if self.samples[-1:] != [end] else self.samples
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.last.seconds, 3),
            "samples": [sample[:2] for sample in samples],
            "waited": [sample[2] for sample in samples],
            "resumed": [sample[3] for sample in samples],
            **{name: getattr(self.last, name) for name in _COUNTS},
            **({"failed": self.failed} if self.failed else {}),
        }


def _sample(report: Report) -> tuple[float, int, float, int]:
    """Seconds, systems that are solved, seconds without any to solve, and those solved before."""
    waited = report.seconds_waiting / report.threads
    return round(report.seconds, 3), report.solved, round(waited, 3), report.systems_resumed


@contextmanager
def kept(output: Output, progress: Progress | None) -> Iterator[Progress]:
    """Give a `progress` that follows the job, and at its end add what it saw to the output."""
    run = Run()

    def follow(report: Report) -> None:
        run.note(report)
        if progress is not None:
            progress(report)

    try:
        yield follow
    except BlockErrors as error:
        run.failed = [str(failure)[:_LETTERS] for failure in error.failures[:_FAILED]]
        raise
    finally:
        if run.last is not None:
            # A full disk, say, is no reason to call the job failed.
            with suppress(Exception), internals.hurried():
                group = output.group()
                output.refuse_another([group])
                attributes = group["attributes"]
                earlier = [old for old in _parsed(attributes) if _odd(old) is None]
                runs = [*earlier, run.record()][-_RUNS:]
                attributes[ATTRIBUTE] = json.dumps(runs)
                documents.write(output.store, {"": group})
                output.secure()


def read(group: Document) -> list[dict[str, Any]]:
    """Return what is known of the runs that wrote an output, the first one first."""
    runs = _parsed(group.get("attributes"))
    for number, run in enumerate(runs, 1):
        odd = _odd(run)
        if odd is not None:
            raise ValueError(
                f"the history in the output is damaged: of run {number}, {odd} is "
                f"{repr(run.get(odd) if isinstance(run, dict) else run)[:80]}. No answer depends "
                f"on it: delete the attribute {ATTRIBUTE} of the group, or resume the job"
            )
    return runs


def _parsed(attributes: Any) -> list[Any]:
    try:
        runs = json.loads(attributes.get(ATTRIBUTE, "[]"))
    except (AttributeError, TypeError, ValueError, RecursionError):  # a person edited it
        return []
    return runs if isinstance(runs, list) else []


def _odd(run: Any) -> str | None:
    """What of a record is not what a run leaves; None: nothing."""
    if not isinstance(run, dict):
        return "the record"
    if not isinstance(run.get("started"), str):
        return "started"
    samples = run.get("samples")
    if not isinstance(samples, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in samples
    ):
        return "samples"
    for name in ("waited", "resumed"):
        values = run.get(name, [0] * len(samples))  # which older versions did not keep
        whole = isinstance(values, list) and len(values) == len(samples)
        if not whole or not all(map(_is_number, values)):
            return name
    failed = run.get("failed", [])
    if not isinstance(failed, list) or not all(isinstance(text, str) for text in failed):
        return "failed"
    counts = ("seconds", *(name for name in _COUNTS if name in run))
    return next((name for name in counts if not _is_number(run.get(name))), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e18
