"""One self-contained page about the output of a zarr job: its numbers, and where they are bad."""

import math
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray

from dasksolve.job.report import table
from dasksolve.job.survey import DECADES, Histogram, Survey, survey
from dasksolve.status import Status
from dasksolve.storage import secrets
from dasksolve.storage.stores import Location

WIDTH, HEIGHT = 360, 240  # of a drawing: about a phone's, so that its text stays legible there
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 44
INTERVALS = 40

# ColorBrewer's Blues, told apart by everyone and in grey print; grey for what is not solved yet.
SHADES = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
SHARES = ("≤ 0.1 %", "≤ 1 %", "≤ 10 %", "more")
PENDING = "#bdbdbd"

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
@media print {
  @page { margin: 14mm }
  body { padding: 0; font-size: 10pt; print-color-adjust: exact }
  main { display: block; columns: 2 } section { margin-bottom: .8rem }
}
"""


def page(out: Location) -> str:
    """Return an HTML page about the output of a zarr job, which asks no other host for anything.

    Parameters
    ----------
    out : str or pathlib.Path
        Path or URL of the group that `solve_zarr` wrote; it may be unfinished.

    Returns
    -------
    str
        The page: the job's summary, histograms of rcond and backward error where the job wrote
        them, a map of the flagged systems, and the throughput over time. Arrays are read one block
        at a time; x is not read.

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
        ("Flagged systems", _flagged(found)),
        ("Throughput", _throughput(found)),
    ]
    titles = {"rcond": "Reciprocal condition number", "backward_error": "Backward error"}
    sections += [
        (titles[name], _histogram(histogram, name, found.eps))
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
    core = found.x_shape[len(found.batch_shape) :]
    k = core[1] if len(core) > 1 else 1
    options = found.job.get("options") or {}
    rows = [
        ("systems", f"{math.prod(found.batch_shape):,} ({batch})"),
        ("each", f"order {core[0]}, {k} right-hand side{'s' if k > 1 else ''}, {found.dtype}"),
        ("options", ", ".join(f"{name}={value}" for name, value in options.items())),
        *((name, _location(found.job.get(name))) for name in ("a", "b")),
        *((_words(status), f"{n:,}") for status, n in found.counts.items() if n),
    ]
    if found.unread:
        rows.append(("damaged", f"{found.unread:,} blocks cannot be read; resume the job"))
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


def _location(source: Any) -> str:
    """Where an input was, as the journal says."""
    return secrets.shown(source.get("location", "?")) if isinstance(source, dict) else "?"


def _words(status: Status) -> str:
    return status.name.lower().replace("_", " ")


def _flagged(found: Survey) -> str:
    flagged = sum(n for status, n in found.counts.items() if status > Status.OK)
    pending = found.counts[Status.PENDING]
    if not flagged and not pending:
        return "<p>None: every system is solved, and OK.</p>"
    text = f"<p>{flagged:,} flagged"
    text += f"; {pending:,} not solved yet (grey)</p>" if pending else "</p>"
    if found.batch_shape:
        text += _map(found)
    if found.flagged:
        places = [p if len(p) > 1 else p[0] for p in found.flagged[:20] if p]
        more = ", …" if flagged > len(places) else ""
        text += f"<p>At {', '.join(map(str, places))}{more}</p>" if places else ""
    return text


def _map(found: Survey) -> str:
    """The cells of the first two dimensions, darker where more of their systems are flagged."""
    rows, columns = found.flagged_map.shape
    others = math.prod(found.batch_shape[2:])
    height = 60 if rows == 1 else HEIGHT - TOP - BOTTOM
    wide, high = (WIDTH - LEFT - RIGHT) / columns, height / rows
    pieces = []
    for i in range(rows):
        tall = min(found.cell[0], found.plane[0] - i * found.cell[0])
        extents = np.minimum(found.cell[1], found.plane[1] - np.arange(columns) * found.cell[1])
        colours = _shades(found.flagged_map[i] / (tall * extents * others), found.pending_map[i])
        edges = [j for j in range(columns) if j == 0 or colours[j] != colours[j - 1]] + [columns]
        pieces += [
            f'<rect x="{LEFT + start * wide:.2f}" y="{TOP + i * high:.2f}" '
            f'width="{(stop - start) * wide:.2f}" height="{high:.2f}" '
            f'fill="{colours[start]}" shape-rendering="crispEdges"/>'
            for start, stop in pairwise(edges)
            if colours[start]
        ]
    down, across = found.names[:2] if len(found.batch_shape) > 1 else ("", *found.names)
    pieces.append(_frame(height))
    pieces.append(_ticks([(0, "0"), (1, f"{found.plane[1]:,}")], across, height))
    if down:
        pieces.append(_text(LEFT - 6, TOP + 10, "0", "end"))
        pieces.append(_text(LEFT - 6, TOP + height, f"{found.plane[0]:,}", "end"))
        pieces.append(_upright(down, height))
    legend = "".join(
        f'<rect x="{10 + 87 * i}" y="{TOP + height + 42}" width="12" height="12" '
        f'fill="{colour}"/>{_text(26 + 87 * i, TOP + height + 52, name)}'
        for i, (colour, name) in enumerate(zip(SHADES, SHARES, strict=True))
    )
    label = "Map of the flagged systems: the share of each cell that is flagged"
    return _svg(label, "".join(pieces) + legend, TOP + height + 60)


def _shades(shares: NDArray[np.float64], pending: NDArray[np.int64]) -> list[str]:
    places = np.searchsorted([1e-3, 1e-2, 1e-1], shares)
    return [
        SHADES[place] if share > 0 else PENDING if waiting else ""
        for place, share, waiting in zip(places, shares, pending, strict=True)
    ]


def _throughput(found: Survey) -> str:
    """Systems a second over time, of the last run that solved some."""
    for run in reversed(found.runs):
        samples = np.array([(0, 0), *run["samples"]], float)
        seconds, done = samples[:, 0], samples[:, 1]
        if len(samples) > 1 and run.get("blocks_resumed"):
            done[0] = done[1]  # what was done before is not this run's work
        if len(samples) > 2 and done[-1] > done[0]:
            break
    else:
        return "<p>No run is on record that solved a few blocks and came to its end.</p>"
    edges = np.linspace(0, seconds[-1], min(INTERVALS, len(samples)) + 1)
    rates = np.diff(np.interp(edges, seconds, done)) / np.diff(edges)
    top = _round_up(rates.max())
    height = HEIGHT - TOP - BOTTOM
    steps = np.repeat(edges, 2)[1:-1] / edges[-1]
    points = " ".join(
        f"{LEFT + s * (WIDTH - LEFT - RIGHT):.1f},{TOP + height * (1 - r / top):.1f}"
        for s, r in zip(steps, np.repeat(rates, 2), strict=True)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#2171b5" stroke-width="2"/>'
    text = f"<p>{_short((done[-1] - done[0]) / seconds[-1])} systems a second on average</p>"
    time = [(0, "0"), (0.5, f"{edges[-1] / 2:.3g}"), (1, f"{edges[-1]:.3g}")]
    axes = _levels(top, "systems / s") + _ticks(time, "seconds", height)
    return text + _svg("Systems solved a second over time", axes + line + _frame(height), HEIGHT)


def _histogram(histogram: Histogram, name: str, eps: float) -> str:
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
    counts = histogram.counts[first:last]
    top, height = _round_up(float(counts.max())), HEIGHT - TOP - BOTTOM
    wide = (WIDTH - LEFT - RIGHT) / len(counts)
    bars = []
    for i, count in enumerate(counts.tolist()):
        tall = max(height * count / top, 1.5) if count else 0
        below = name == "rcond" and DECADES[0] + (first + i + 1) / 2 <= math.log10(eps)
        bars.append(
            f'<rect x="{LEFT + i * wide + 0.5:.1f}" y="{TOP + height - tall:.1f}" '
            f'width="{wide - 1:.1f}" height="{tall:.1f}" '
            f'fill="{SHADES[3] if below else SHADES[1]}"/>'
        )
    decades = range(0, len(counts) + 1, 2)
    every = -(-len(decades) // 6)
    powers = [(i / len(counts), f"1e{DECADES[0] + (first + i) // 2}") for i in decades[::every]]
    axes = _levels(top, "systems") + _ticks(powers, name.replace("_", " "), height)
    if name == "rcond":
        text += f"<p>Dark: below eps = {eps:.2g}, where x means nothing</p>"
    label = f"Histogram of {name.replace('_', ' ')}"
    return text + _svg(label, axes + "".join(bars) + _frame(height), HEIGHT)


def _round_up(most: float) -> float:
    """The next of 1, 2, 5, 10, 20, …"""
    power = 10.0 ** math.floor(math.log10(most))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= most)


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def _levels(top: float, name: str) -> str:
    """Lines across, with numbers at the left."""
    height = HEIGHT - TOP - BOTTOM
    pieces = []
    for share in (0, 0.5, 1):
        y = TOP + height * (1 - share)
        pieces.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#e5e5e5"/>'
            + _text(LEFT - 6, y + 4, _short(top * share), "end")
        )
    return "".join(pieces) + _upright(name, height)


def _ticks(places: list[tuple[float, str]], name: str, height: float) -> str:
    """Numbers below, and what they number."""
    pieces = []
    for share, label in places:
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        anchor = "end" if share > 0.97 else "middle"
        pieces.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + height}" y2="{TOP + height + 4}" '
            f'stroke="#555"/>{_text(x, TOP + height + 17, label, anchor)}'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(pieces) + _text(middle, TOP + height + 34, name, "middle")


def _frame(height: float) -> str:
    return (
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{height}" '
        'fill="none" stroke="#555"/>'
    )


def _upright(name: str, height: float) -> str:
    y = TOP + height / 2
    turned = f'transform="rotate(-90 14 {y:.1f})"'
    return f'<text x="14" y="{y:.1f}" text-anchor="middle" {turned}>{escape(name)}</text>'


def _text(x: float, y: float, words: Any, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def _svg(label: str, content: str, height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )
