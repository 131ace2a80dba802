"""Drawings in SVG: a frame, axes with round numbers, lines and bars between them."""

import math
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 360, 240  # of a drawing: about a phone's, so that its text stays legible there
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 10, 44
LETTER = 6.7
"""Width of a digit of a drawing's text."""
LINE = "#0072b2"

Ticks = list[tuple[float, str]]
"""Places on an axis, in shares of its length, and what is written there."""


def round_numbers(end: float) -> Ticks:
    """Round numbers from 0 up to the end of an axis, three to six of them."""
    power = 10.0 ** math.floor(math.log10(end))
    step = next(m * power for m in (0.2, 0.5, 1, 2) if end / (m * power) < 6)
    return [(i * step / end, short(i * step)) for i in range(int(end / step) + 1)]


def counts(end: float) -> Ticks:
    """Those of them that something can be counted by."""
    ticks = round_numbers(end)
    return [
        (share, label) for share, label in ticks if abs(share * end - round(share * end)) < 1e-6
    ]


def whole_numbers(extent: int, end: int) -> Ticks:
    """Whole ones, and the extent of a dimension, on an axis that ends where its cells do."""
    rounds = [(round(share * extent), label) for share, label in counts(extent)]
    before = [(i / end, label) for i, label in rounds if i < 0.85 * extent]
    return [*before, (extent / end, short(extent))]


def short(number: float) -> str:
    """A number in three digits or four, and a letter."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= 0.9995 * size:
            return f"{number / (1e3 if letter == 'k' else size):.3g} {letter}"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def left_axis(ticks: Ticks, name: str, height: float, downward: bool = False) -> str:
    """Lines across, with numbers at the left."""
    pieces = []
    for share, label in ticks:
        y = TOP + height * (share if downward else 1 - share)
        reach = f'x1="{LEFT - 4}" x2="{LEFT}"' if downward else f'x1="{LEFT}" x2="{WIDTH - RIGHT}"'
        stroke = "#555" if downward else "#e5e5e5"
        pieces.append(
            f'<line {reach} y1="{y:.1f}" y2="{y:.1f}" stroke="{stroke}"/>'
            + _text(LEFT - 7, y + 4, label, "end")
        )
    return "".join(pieces) + _upright(name, height)


def bottom_axis(ticks: Ticks, name: str, height: float) -> str:
    """Numbers below, and what they number."""
    pieces = []
    for share, label in ticks:
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        pieces.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + height}" y2="{TOP + height + 4}" '
            f'stroke="#555"/>'
            + _text(min(x, WIDTH - LETTER * len(label) / 2), TOP + height + 20, label, "middle")
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(pieces) + _text(middle, TOP + height + 38, name, "middle")


def frame(height: float) -> str:
    """The frame around what is drawn."""
    return (
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{height}" '
        'fill="none" stroke="#555"/>'
    )


def _upright(name: str, height: float) -> str:
    y = TOP + height / 2
    turned = f'transform="rotate(-90 14 {y:.1f})"'
    return f'<text x="14" y="{y:.1f}" text-anchor="middle" {turned}>{escape(name)}</text>'


def _text(x: float, y: float, words: Any, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def svg(label: str, content: str, height: float) -> str:
    """A drawing, and what it shows for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )


def steps(edges: NDArray[Any], shares: NDArray[Any], height: float) -> str:
    """A line of steps between these moments, at these shares of the height."""
    moments = np.repeat(edges, 2)[1:-1] / edges[-1]
    points = " ".join(
        f"{LEFT + m * (WIDTH - LEFT - RIGHT):.1f},{TOP + height * (1 - s):.1f}"
        for m, s in zip(moments, np.repeat(shares, 2), strict=True)
    )
    return f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="2"/>'
