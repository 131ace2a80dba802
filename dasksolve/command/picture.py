"""Draws what `bench --plot` asks for: how many times faster each order and dtype is."""

from pathlib import Path
from typing import TYPE_CHECKING

from dasksolve.errors import naming

if TYPE_CHECKING:
    from dasksolve.command.bench import Row


def refuse(file: Path) -> None:
    """Refuse to draw where it cannot be done."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('--plot needs matplotlib: pip install "dasksolve[plot]"') from error
    kinds = Figure().canvas.get_supported_filetypes()
    if file.suffix.lower().removeprefix(".") not in kinds:
        names = ", ".join(f".{kind}" for kind in sorted(kinds))
        raise ValueError(f"--plot {file}: the name of a picture ends in one of {names}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} to")


def draw(rows: list["Row"], path: str, baseline: str, title: str) -> None:
    """Draw how many times faster than the baseline each case is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = {  # colours of Okabe and Ito, which a colour-blind person can tell apart
        "float64": ("#0072B2", "o"),
        "float32": ("#E69F00", "s"),
        "complex128": ("#009E73", "^"),
        "complex64": ("#CC79A7", "D"),
    }
    for dtype in dict.fromkeys(row.dtype for row in rows):
        mine = [row for row in rows if row.dtype == dtype]
        colour, marker = styles[dtype]
        axes.plot(
            [row.n for row in mine],
            [row.ratio for row in mine],
            color=colour,
            marker=marker,
            markersize=5,
            label=dtype,
        )
    axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="order N of the systems",
        ylabel=f"times faster than {baseline}",
    )
    orders = sorted({row.n for row in rows})
    axes.set_xticks(orders, [str(n) for n in orders], fontsize=8)
    axes.set_yticks([1, 2, 3, 5, 10, 20, 50], ["1", "2", "3", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=9)
    with naming(path):
        figure.savefig(path, dpi=150)
