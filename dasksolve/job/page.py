"""One self-contained page about the output of a zarr job: its numbers, and where they are bad."""

import math
from collections.abc import Iterable
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray

from dasksolve.errors import counted
from dasksolve.job.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Ticks,
    bottom_axis,
    counts,
    frame,
    left_axis,
    round_numbers,
    short,
    steps,
    svg,
    whole_numbers,
)
from dasksolve.job.report import in_words, table
from dasksolve.job.survey import DECADES, Histogram, Survey, survey
from dasksolve.status import Status
from dasksolve.storage import secrets
from dasksolve.storage.stores import OutputLocation

INTERVALS = 40

# Okabe and Ito's colours, which a colour-blind person can tell apart; grey: not solved yet.
_FLAGS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
COLOURS = {
    Status.PENDING: "#bdbdbd",
    **dict(zip((s for s in Status if s > Status.OK), _FLAGS, strict=False)),
}
SHADES = {0.001: 0.4, 0.01: 0.6, 0.1: 0.8, 1.0: 1.0}
"""Opacity of a cell of which at most such a share is flagged."""
EMPTY = ("", 0.0)
"""Colour and opacity of a cell in which nothing is flagged."""
PLAIN = "#a6cbe3"
"""Colour of the bars of a histogram."""

STYLE = """
:root { color-scheme: light; --line: #d0d0d0; --ink: #1a1a1a; --soft: #555 }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff;
  max-width: 62rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 0 0 .5rem }
p { margin: .3rem 0; color: var(--soft) } .path { overflow-wrap: anywhere }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
  gap: 1rem; margin-top: 1rem }
section { border: 1px solid var(--line); border-radius: 6px; padding: .8rem; min-width: 0;
  break-inside: avoid }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th { text-align: left; font-weight: normal; color: var(--soft); padding-right: .6rem;
  vertical-align: top; width: 38% }
td { overflow-wrap: break-word }
svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
.key { display: flex; flex-wrap: wrap; gap: 0 1rem }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
@media print {
  @page { margin: 14mm }
  body { padding: 0; font-size: 10pt; print-color-adjust: exact }
  main { display: block; columns: 2 } section { margin-bottom: .8rem }
}
"""


def page(out: OutputLocation) -> str:
    """Return an HTML page about the output of a zarr job, which asks no other host for anything.

    Parameters
    ----------
    out : str, pathlib.Path, zarr.Group or zarr.abc.store.Store
        Path or URL of the group that a job wrote, or of a zip archive of it; it may be unfinished.

    Returns
    -------
    str
        The page: the job's summary, histograms of rcond and backward error where the job wrote
        them, a map of what is flagged, and over time the throughput and how long threads waited
        for storage. Arrays are read block by block; answers are not read.

    Raises
    ------
    FileNotFoundError
        There is nothing at `out`.
    ValueError
        What is there is not the output of a job.

    Examples
    --------
    >>> import numpy as np, tempfile, zarr, dasksolve
    >>> from dasksolve.job.page import page
    >>> folder = tempfile.TemporaryDirectory()
    >>> a = zarr.create_array(folder.name + "/a", data=np.eye(2) + np.ones((10, 2, 2)))
    >>> b = zarr.create_array(folder.name + "/b", data=np.ones((10, 2)))
    >>> report = dasksolve.solve_zarr(a, b, folder.name + "/out")
    >>> page(folder.name + "/out").startswith("<!doctype html>")
    True
    >>> folder.cleanup()
    """
    return drawn(survey(out))


def drawn(found: Survey) -> str:
    """The page about what was found."""
    sections = [
        ("Summary", table(summary(found))),
        (f"Flagged {found.unit}", _flagged(found)),
        ("Throughput", _throughput(found)),
    ]
    titles = {"rcond": "Reciprocal condition number", "backward_error": "Backward error"}
    sections += [
        (titles[name], _histogram(histogram, name, found))
        for name, histogram in found.histograms.items()
    ]
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>dasksolve: {escape(found.location)}</title>'
        f"<style>{STYLE}</style></head><body><h1>dasksolve report</h1>"
        f'<p class="path">{escape(found.location)}</p><main>{body}</main></body></html>\n'
    )


def summary(found: Survey) -> list[tuple[str, str]]:
    """The job in lines of (what, how much)."""
    batch = " by ".join(f"{n:,}" for n in found.batch_shape) or "one system"
    shape = "" if len(found.batch_shape) == 1 else f" ({batch})"
    options = found.job.get("options") or {}
    rows = [
        (found.unit, f"{math.prod(found.batch_shape):,}{shape}"),
        ("each", f"{_each(found)}, {found.dtype}"),
        ("options", ", ".join(_stated(options))),
        *_sources(found.job),
        *((in_words(status), f"{n:,}") for status, n in found.counts.items() if n),
    ]
    if found.unread:
        unread = counted(found.unread, "blocks")
        rows.append(("damaged", f"{unread} cannot be read; resume the job"))
    elif found.counts[Status.PENDING]:
        rows.append(("unfinished", "resume the job (--resume), unless it is running"))
        rows += [("failed", text) for run in found.runs[-1:] for text in run.get("failed", [])]
    for name, histogram in found.histograms.items():
        worst = histogram.least if name == "rcond" else histogram.largest
        if not math.isnan(worst):
            rows.append((f"worst {name.replace('_', ' ')}", f"{worst:.2g}"))
    for i, run in enumerate(found.runs, 1):
        name = "time" if len(found.runs) == 1 else f"run {i}"
        started = str(run["started"]).replace("T", " ").replace("+00:00", " UTC")
        rows.append((name, f"{run['seconds']:,.1f} s from {started}"))
    if found.runs:
        last = found.runs[-1]
        sizes = [format_bytes(last.get(f"bytes_{done}", 0)) for done in ("read", "written")]
        rows.append(("read, written", ", ".join(sizes)))
        rows.append(("peak memory", format_bytes(last.get("peak_memory", 0))))
    return rows


def _stated(options: dict[str, Any]) -> list[str]:
    """Those that are given or on; one number where a ridge is the same for all coefficients."""
    alike = {
        name: value[0] if isinstance(value, list) and len({*map(repr, value)}) == 1 else value
        for name, value in options.items()
    }
    return [
        f"{name}={value}"
        for name, value in alike.items()
        if value is not None and value is not False and (value or name != "ridge")
    ]


def _each(found: Survey) -> str:
    """What one of the batch is."""
    if found.regression:
        design = found.job.get("design")
        match design.get("shape") if isinstance(design, dict) else None:
            case [int(observations), int(n)]:
                return f"{counted(observations, 'observations')}, {counted(n, 'coefficients')}"
        return "? observations, ? coefficients"
    if found.job.get("batch"):
        return f"order {found.shape[0]}, one matrix for all"
    core = found.shape[len(found.batch_shape) :]
    k = core[1] if len(core) > 1 else 1
    return f"order {core[0]}, {counted(k, 'right-hand sides')}"


def _sources(job: dict[str, Any]) -> list[tuple[str, str]]:
    """The inputs of which a record speaks, and where each was, if it has an address."""
    files = job.get("files")
    places = files if isinstance(files, dict) else {}
    found = [
        (name, _location(job.get(name)) or places.get(name))
        for name in ("a", "b", "y", "design", "weights")
    ]
    return [(name, secrets.shown(place)) for name, place in found if place is not None]


def _location(source: Any) -> Any:
    """Where an input was, as the journal says."""
    return source.get("location") if isinstance(source, dict) else None


def _flagged(found: Survey) -> str:
    if found.all_ok:
        return f"<p>None: all {found.unit} are solved, and OK.</p>"
    text = _key(
        (COLOURS[status], 1, f"{n:,} {'not solved yet' if status < 0 else in_words(status)}")
        for status, n in found.counts.items()
        if n and status is not Status.OK
    )
    if found.batch_shape:
        text += _map(found)
    places = [p if len(p) > 1 else p[0] for p in found.flagged[:20] if p]
    more = ", …" if found.flagged_count > len(places) else ""
    return text + (f"<p>At {', '.join(map(str, places))}{more}</p>" if places else "")


def _key(entries: Iterable[tuple[str, float, str]]) -> str:
    """What each colour, of some opacity, stands for."""
    squares = "".join(
        f'<span><i style="background:{colour};opacity:{opacity}"></i>{escape(words)}</span>'
        for colour, opacity, words in entries
    )
    return f'<p class="key">{squares}</p>'


def _map(found: Survey) -> str:
    """The cells of the first two dimensions: of which kind most flags are, darker where more."""
    rows, columns = found.flagged_map.shape
    height = 60 if rows == 1 else HEIGHT - TOP - BOTTOM
    wide, high = (WIDTH - LEFT - RIGHT) / columns, height / rows
    shades = _shades(found)
    pieces = []
    for i, row in enumerate(shades):
        edges = [j for j in range(columns) if j == 0 or row[j] != row[j - 1]] + [columns]
        pieces += [
            f'<rect x="{LEFT + start * wide:.2f}" y="{TOP + i * high:.2f}" '
            f'width="{(stop - start) * wide:.2f}" height="{high:.2f}" '
            f'fill="{row[start][0]}" fill-opacity="{row[start][1]}" shape-rendering="crispEdges"/>'
            for start, stop in pairwise(edges)
            if row[start] != EMPTY
        ]
    down, across = found.names[:2] if len(found.batch_shape) > 1 else ("", *found.names)
    extents = [found.cell[axis] * n for axis, n in enumerate((rows, columns))]
    pieces.append(frame(height))
    pieces.append(bottom_axis(whole_numbers(found.plane[1], extents[1]), across, height))
    if down:
        pieces.append(
            left_axis(whole_numbers(found.plane[0], extents[0]), down, height, downward=True)
        )
    label = f"Map of the flagged {found.unit}: the kind of most, darker where more are flagged"
    return svg(label, "".join(pieces), TOP + height + BOTTOM) + _shares(shades)


def _shades(found: Survey) -> list[list[tuple[str, float]]]:
    """Colour and opacity of each cell of the map."""
    rows, columns = found.flagged_map.shape
    extents = [
        np.minimum(step, extent - np.arange(cells) * step)
        for step, extent, cells in zip(found.cell, found.plane, (rows, columns), strict=True)
    ]
    shares = found.flagged_map / (np.outer(*extents) * math.prod(found.batch_shape[2:]))
    opacities = np.array([*SHADES.values()])[np.searchsorted([*SHADES], np.minimum(shares, 1))]
    flags = [status for status in found.maps if status > Status.OK]
    kinds = np.argmax([found.maps[status] for status in flags], axis=0)
    pending = found.maps[Status.PENDING]
    return [
        [
            (COLOURS[flags[kinds[i, j]]], float(opacities[i, j]))
            if shares[i, j]
            else (COLOURS[Status.PENDING], 1.0)
            if pending[i, j]
            else EMPTY
            for j in range(columns)
        ]
        for i in range(rows)
    ]


def _shares(shades: list[list[tuple[str, float]]]) -> str:
    """What the opacities stand for, if there are several."""
    if {opacity for row in shades for _, opacity in row} <= {0.0, 1.0}:
        return ""
    names = [f"up to {share:.1%}" for share in SHADES]
    return "<p>Of a cell are flagged:</p>" + _key(
        ("#444", opacity, name.replace(".0%", "%"))
        for name, opacity in zip(names, SHADES.values(), strict=True)
    )


def _throughput(found: Survey) -> str:
    """Systems a second over time, of the last run that solved some, and how long it waited."""
    for run in reversed(found.runs):
        samples = np.array([(0, 0), *run["samples"]], float)
        seconds, done = samples[:, 0], samples[:, 1]
        if "resumed" in run:
            done = done - [0, *run["resumed"]]
        elif len(samples) > 1 and run.get("blocks_resumed"):  # by an older version
            done[0] = done[1 if run.get("bytes_written") else -1]
        if len(samples) > 2 and done[-1] > done[0]:
            break
    else:
        return "<p>No run is on record that solved a few blocks and came to its end.</p>"
    edges = np.linspace(0, seconds[-1], min(INTERVALS, len(samples)) + 1)
    rates = np.diff(np.interp(edges, seconds, done)) / np.diff(edges)
    top, height = 1.05 * rates.max(), HEIGHT - TOP - BOTTOM
    line = steps(edges, rates / top, height)
    text = f"<p>{short((done[-1] - done[0]) / seconds[-1])} {found.unit} a second on average</p>"
    axes = left_axis(round_numbers(top), f"{found.unit} / s", height) + bottom_axis(
        round_numbers(edges[-1]), "seconds", height
    )
    label = f"{found.unit.capitalize()} solved a second over time"
    return text + svg(label, axes + line + frame(height), HEIGHT) + _waiting(run, edges)


def _waiting(run: dict[str, Any], edges: NDArray[Any]) -> str:
    """How much of its time a thread that solves had nothing to solve."""
    if "waited" not in run:  # by an older version
        return ""
    seconds = np.array([0, *(sample[0] for sample in run["samples"])])
    # What was solved, and first compiled, is known once a block is done: waiting was never more.
    waited = np.minimum.accumulate([0, *run["waited"]][::-1])[::-1]
    shares = np.clip(np.diff(np.interp(edges, seconds, waited)) / np.diff(edges), 0, 1)
    text = f"<p>{waited[-1] / edges[-1]:.0%} of the time a thread had nothing to solve: it read, "
    text += "wrote, or waited for storage</p>"
    height = 80
    levels: Ticks = [(0, "0"), (0.5, "50 %"), (1, "100 %")]
    axes = left_axis(levels, "waiting", height) + bottom_axis(
        round_numbers(edges[-1]), "seconds", height
    )
    label = "Share of the time that threads waited"
    drawn = axes + steps(edges, shares, height) + frame(height)
    return text + svg(label, drawn, TOP + height + BOTTOM)


def _histogram(histogram: Histogram, name: str, found: Survey) -> str:
    """Bars of half a decade; those below eps, where rcond is bad, are dark."""
    filled = np.flatnonzero(histogram.counts)
    notes = [
        f"{n:,} {what}"
        for n, what in ((histogram.zero, "exactly 0"), (histogram.undefined, "NaN"))
        if n
    ]
    text = f"<p>{'; '.join(notes)}</p>" if notes else ""
    if not filled.size:
        return text or "<p>No numbers yet.</p>"
    first = 2 * (filled[0] // 2) - 2 if filled[0] > 1 else 0
    last = min(len(histogram.counts), 2 * (filled[-1] // 2) + 4)
    bins = histogram.counts[first:last]
    top, height = 1.05 * float(bins.max()), HEIGHT - TOP - BOTTOM
    wide = (WIDTH - LEFT - RIGHT) / len(bins)
    bars = []
    for i, count in enumerate(bins.tolist()):
        tall = max(height * count / top, 1.5) if count else 0
        below = name == "rcond" and DECADES[0] + (first + i + 1) / 2 <= math.log10(found.eps)
        bars.append(
            f'<rect x="{LEFT + i * wide + 0.5:.1f}" y="{TOP + height - tall:.1f}" '
            f'width="{wide - 1:.1f}" height="{tall:.1f}" '
            f'fill="{COLOURS[Status.ILL_CONDITIONED] if below else PLAIN}"/>'
        )
    decades = range(0, len(bins) + 1, 2)
    every = -(-len(decades) // 6)
    powers = [(i / len(bins), f"1e{DECADES[0] + (first + i) // 2}") for i in decades[::every]]
    axes = left_axis(counts(top), found.unit, height)
    axes += bottom_axis(powers, name.replace("_", " "), height)
    if name == "rcond":
        text += f"<p>Dark: below eps = {found.eps:.2g}, where {found.answers} means nothing</p>"
    label = f"Histogram of {name.replace('_', ' ')}"
    return text + svg(label, axes + "".join(bars) + frame(height), HEIGHT)
