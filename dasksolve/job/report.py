"""`Report`: what a zarr job did."""

import math
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np
from dask.utils import format_bytes

from dasksolve.errors import counted
from dasksolve.status import Status

FLAGGED = 1000
"""How many flagged systems a report names."""


@dataclass(frozen=True)
class Report:
    """What a zarr job did; ``str(report)`` is the summary, ``to_dict()`` the same for programs.

    Attributes
    ----------
    out : str
        Path or URL of the output group.
    systems : int
        Systems in the batch.
    batch_shape : tuple[int, ...]
        Shape of the batch: ``numpy.unravel_index(i, report.batch_shape)`` for an i of `flagged`.
    counts : dict[Status, int]
        How many systems have each status.
    flagged : tuple[int, ...]
        Flat, C-order indices of the first 1,000 systems whose status is not OK.
    blocks : int
        Blocks in the job.
    blocks_done : int
        Blocks that are finished, now or before.
    blocks_resumed : int
        Blocks that an earlier run had finished, and that were not solved again.
    chunks_missing : int
        Chunks of a and b that were not stored, taken as the fill value (``strict=False``).
    bytes_read : int
        Bytes of the chunks of a and b that were read, as numbers in memory.
    bytes_written : int
        Bytes of x and status that were written, as numbers in memory.
    seconds : float
        Wall time.
    peak_memory : int
        The most bytes that the job added to a process.
    bytes_needed : int
        Bytes of a and b in the blocks that were solved: a chunk may be read for more than one.
    chunks_read : int
        Requests for a stored chunk of a or b, or a shard of one.
    chunks_written : int
        Requests to store a chunk: one of each array of the output for a block.
    threads : int
        Threads that solve, in all processes: no more than there are blocks.
    seconds_waiting : float
        How long the threads that solve had nothing to solve, all together: most often they waited
        for storage.
    worst_rcond : float
        Smallest reciprocal condition number; NaN without diagnostics.
    worst_backward_error : float
        Largest backward error; NaN without diagnostics.
    systems_resumed : int
        Systems of the blocks that an earlier run had finished.
    unit : str
        What the batch consists of: "systems", or "series" of regressions.
    """

    out: str
    systems: int
    batch_shape: tuple[int, ...]
    counts: dict[Status, int]
    flagged: tuple[int, ...]
    blocks: int
    blocks_done: int
    blocks_resumed: int
    chunks_missing: int
    bytes_read: int
    bytes_written: int
    seconds: float
    peak_memory: int
    bytes_needed: int = 0
    chunks_read: int = 0
    chunks_written: int = 0
    threads: int = 1
    seconds_waiting: float = 0.0
    worst_rcond: float = math.nan
    worst_backward_error: float = math.nan
    systems_resumed: int = 0
    unit: str = "systems"

    @property
    def flagged_count(self) -> int:
        """How many systems are solved and not OK."""
        return sum(n for status, n in self.counts.items() if status > Status.OK)

    @property
    def read_amplification(self) -> float:
        """How often a byte of a and b was read; 1 where blocks are made of whole chunks."""
        return self.bytes_read / self.bytes_needed if self.bytes_needed else 1.0

    @property
    def requests(self) -> dict[str, int]:
        """Requests for chunks, by kind: get and put; of a shard, zarr may get several parts."""
        return {"get": self.chunks_read, "put": self.chunks_written}

    @property
    def solved(self) -> int:
        """How many systems have a status other than PENDING."""
        return self.systems - self.counts[Status.PENDING]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as numbers, strings, lists and dicts, ready for JSON.

        Where the batch has several dimensions, `flagged` are the places in it, not flat indices.
        """
        values = asdict(self)
        values["counts"] = {status.name: n for status, n in self.counts.items()}
        values["flagged"] = self._places(self.flagged)
        values["flagged_count"] = self.flagged_count
        values["read_amplification"] = self.read_amplification
        values["requests"] = self.requests
        for name in ("worst_rcond", "worst_backward_error"):
            if math.isnan(values[name]):
                values[name] = None
        return values

    def _places(self, flat: tuple[int, ...]) -> list[Any]:
        """Where in the batch some flat indices are."""
        if len(self.batch_shape) < 2:
            return list(flat)
        axes = np.unravel_index(np.array(flat, np.intp), self.batch_shape)
        return list(zip(*(axis.tolist() for axis in axes), strict=True))

    def rows(self) -> list[tuple[str, str]]:
        """The lines of the summary, as (what, how much)."""
        rate = (self.bytes_read + self.bytes_written) / max(self.seconds, 1e-9)
        rows = [
            ("output", self.out),
            (self.unit, f"{self.systems:,} in {counted(self.blocks, 'blocks')}"),
            *((in_words(status), f"{n:,}") for status, n in self.counts.items() if n),
        ]
        if self.flagged:
            more = ", …" if self.flagged_count > 10 else ""
            places = self._places(self.flagged[:10])
            rows.append(("flagged", ", ".join(map(str, places)) + more))
        if self.blocks_resumed:
            were = "was" if self.blocks_resumed == 1 else "were"
            done = f"{counted(self.blocks_resumed, 'blocks')} {were} done before"
            rows.append(("resumed", done))
        if self.chunks_missing:
            missing = f"{counted(self.chunks_missing, 'chunks')}, taken as the fill value"
            rows.append(("not stored", missing))
        if self.read_amplification >= 1.05:
            rows.append(("read", f"{self.read_amplification:.1f} times, since chunks are split"))
        if not math.isnan(self.worst_rcond):
            rows.append(("worst rcond", f"{self.worst_rcond:.2g}"))
        if not math.isnan(self.worst_backward_error):
            rows.append(("worst backward error", f"{self.worst_backward_error:.2g}"))
        requests = []
        if self.chunks_read:
            together = f", all {self.threads} threads together" if self.threads > 1 else ""
            waited = f"{self.seconds_waiting:.1f} s{together}: waiting for storage, most often"
            read = f"{counted(self.chunks_read, 'chunks')} read, {self.chunks_written:,} written"
            requests = [("requests", read), ("not solving", waited)]
        return [
            *rows,
            (
                "read, written",
                f"{format_bytes(self.bytes_read)}, {format_bytes(self.bytes_written)}",
            ),
            *requests,
            ("time", f"{self.seconds:.1f} s, {format_bytes(int(rate))}/s"),
            ("peak memory", format_bytes(self.peak_memory)),
        ]

    def __str__(self) -> str:
        return text(self.rows())

    def _repr_html_(self) -> str:
        return table(self.rows())


def in_words(status: Status) -> str:
    """What a person calls a status."""
    return status.name.lower().replace("_", " ")


def text(rows: list[tuple[str, str]]) -> str:
    """Rows of (what, how much) as lines."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in rows)


def printable(words: str, but: str = "") -> str:
    """Text that does nothing to a terminal: control characters, `but` some, are written out."""
    return "".join(
        c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in words
    )


def table(rows: list[tuple[str, str]]) -> str:
    """Rows of (what, how much) as HTML."""
    left = "style='text-align:left'"  # each: a notebook says otherwise of all three
    cells = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"
